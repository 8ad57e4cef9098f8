"""How the page looks: colours, type and the few rules that Gradio's theme cannot express."""

import html

from gradio import themes

_SAND = themes.Color(
    name="sand",
    c50="#faf8f5",
    c100="#f3efe9",
    c200="#e6dfd5",
    c300="#d3c8ba",
    c400="#a89b8b",
    c500="#7d7165",
    c600="#5d544a",
    c700="#443d36",
    c800="#2b2622",
    c900="#1d1a17",
    c950="#141210",
)
_CLAY = themes.Color(
    name="clay",
    c50="#fdf4ef",
    c100="#fae5da",
    c200="#f4c8b3",
    c300="#eca486",
    c400="#e07d58",
    c500="#cf5f38",
    c600="#b84c28",
    c700="#983c21",
    c800="#7a3220",
    c900="#642c1f",
    c950="#36140d",
)

_LOGO = """<svg viewBox="0 0 48 48" width="36" height="36" aria-hidden="true" fill="none"
stroke="#cf5f38" stroke-width="2.6" stroke-linecap="round" stroke-linejoin="round">
<path d="M15 9c-1.6-3 .3-5.4 2.6-4.6 1.5.5 2 2.3 1.9 4.1"/>
<path d="M23 8.400c.6-3 2.8-4.4 4.5-3.1 1.7 1.3.9 4-1 6"/>
<path d="M13 15c0-4 3.6-6.7 8-6.700s7.5 2.9 7.5 7.200V29c0 3 1.5 4.5 5 5 4 .6 6.5 3 6.5 8"/>
<path d="M13 15c-3.5 1-5.5 3-5.5 5.2 0 2.4 2 3.8 5 3.800h1.700c1.7 0 2.3 1 2 2.700L14 42"/>
<circle cx="18.6" cy="16" r="1.5" fill="#cf5f38" stroke="none"/></svg>"""


def theme() -> themes.Base:
    """Fonts come from this machine or the visitor's; nothing is fetched from elsewhere."""
    return themes.Base(
        primary_hue=_CLAY,
        secondary_hue=_CLAY,
        neutral_hue=_SAND,
        radius_size=themes.sizes.radius_lg,
        font=("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"),
        font_mono=("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"),
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_100",
        background_fill_secondary_dark="*neutral_800",
        block_background_fill="#ffffff",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_shadow="none",
        block_shadow_dark="none",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_800",
        block_label_text_weight="500",
        block_title_text_weight="500",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="#ffffff",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="*neutral_900",
        button_secondary_background_fill_hover_dark="*neutral_800",
        button_secondary_border_color="*neutral_200",
        button_secondary_border_color_dark="*neutral_700",
        input_background_fill="#ffffff",
        input_background_fill_dark="*neutral_900",
        input_border_color="*neutral_200",
        input_border_color_dark="*neutral_700",
        input_border_color_focus="*primary_400",
        slider_color="*primary_500",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
    )


CSS = """
.gradio-container { max-width: 1080px !important; width: 100% !important;
  margin: 0 auto !important;
  padding: 0 20px 12px !important; }
footer { display: none !important; }
#head { align-items: center; padding: 16px 2px 4px; gap: 12px; flex-wrap: nowrap; }
#brand { display: flex; align-items: center; gap: 12px; color: var(--body-text-color); }
#brand svg { flex: none; }
#brand h1 { font-size: 1.32rem; line-height: 1.2; margin: 0; font-weight: 650;
  letter-spacing: -.015em; }
#brand p { margin: 1px 0 0; font-size: .84rem; color: var(--neutral-500); }
.dark #brand p { color: var(--neutral-400); }
#theme { min-width: 42px !important; max-width: 42px; height: 42px; padding: 0;
  border-radius: 999px; font-size: 1.05rem; }
.chat { border-radius: 18px !important; }
.chat .message-wrap { padding-bottom: 10px; }
.chat .message { font-size: .98rem; line-height: 1.6; box-shadow: none !important; }
.chat .user.message { background: var(--primary-50) !important;
  border-color: var(--primary-100) !important; }
.dark .chat .user.message { background: #33231b !important; border-color: #4a3024 !important; }
.chat .bot.message { background: transparent !important; border-color: transparent !important;
  padding-left: 4px !important; }
.chat pre { border-radius: 12px; }
.ask textarea { font-size: 1rem !important; line-height: 1.5 !important; }
.ask { border-radius: 18px !important; }
.chat .bubble-wrap { background: transparent !important; }
.ask textarea { padding-left: 16px !important; }
.bar { gap: 10px; align-items: stretch; }
.bar button { border-radius: 999px; min-height: 40px; }
.vote button { border-radius: 999px; font-weight: 550; min-width: 120px; }
.note p { font-size: .82rem; color: var(--neutral-500); text-align: center; margin: 2px 0; }
.dark .note p { color: var(--neutral-400); }
.welcome { text-align: center; padding: 6vh 8px 8px; }
.welcome h2 { font-size: 1.6rem; font-weight: 650; letter-spacing: -.02em; margin: 0 0 6px; }
.welcome p { color: var(--neutral-500); margin: 0; }
.dark .welcome p { color: var(--neutral-400); }
.verdict { text-align: center; }
@media (max-width: 640px) {
  .gradio-container { padding: 0 4px 8px !important; }
  .gradio-container main { padding-left: 8px !important; padding-right: 8px !important; }
  .duel .chat { max-height: 44dvh; }
  #head { padding: 10px 2px 0; }
  #brand p { display: none; }
  #brand h1 { font-size: 1.12rem; }
  .duel { flex-direction: column; }
  .vote button { min-width: 44%; }
  .welcome { padding-top: 3vh; }
  .welcome h2 { font-size: 1.3rem; }
}
"""

HEAD = """<script>
try {
  const kept = localStorage.getItem('cria-theme');
  const apply = () => kept && document.body.classList.toggle('dark', kept === 'dark');
  document.addEventListener('DOMContentLoaded', () => setTimeout(apply, 0));
} catch (error) { /* private windows may refuse storage; the system's theme holds then */ }
</script>"""

TOGGLE_THEME = """() => {
  const dark = document.body.classList.toggle('dark');
  try { localStorage.setItem('cria-theme', dark ? 'dark' : 'light'); } catch (error) { return; }
}"""


def brand(title: str) -> str:
    return (
        f'<div id="brand">{_LOGO}<div><h1>{html.escape(title)}</h1>'
        "<p>Open models, served by you</p></div></div>"
    )


def welcome(text: str, detail: str) -> str:
    return f'<div class="welcome"><h2>{html.escape(text)}</h2><p>{html.escape(detail)}</p></div>'
