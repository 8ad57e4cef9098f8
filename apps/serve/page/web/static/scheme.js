// Before the first paint: dark or light, as chosen here before or as the system has it.
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try { chosen = localStorage.getItem("cria-scheme"); } catch { /* storage may be refused */ }
  const apply = () => {
    document.documentElement.dataset.scheme = chosen || (system.matches ? "dark" : "light");
  };
  apply();
  system.addEventListener("change", apply);
  window.criaToggleScheme = () => {
    chosen = document.documentElement.dataset.scheme === "dark" ? "light" : "dark";
    try { localStorage.setItem("cria-scheme", chosen); } catch { /* it holds until the page closes */ }
    apply();
  };
})();
