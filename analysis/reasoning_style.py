"""How drawings of reasoning look, on a screen and on paper, and the script that leads through their segments."""

STYLE = """<style>
.reasoning { margin: 0 0 14px; }
.reasoning .panels { display: flex; flex-wrap: wrap; gap: 14px 22px; align-items: flex-start; }
.reasoning figure { margin: 0; max-width: 100%; } .reasoning .step { min-width: min(100%, 27em); }
.reasoning figcaption { margin: 0 0 6px; color: var(--soft); font-size: 14px; }
.reasoning .controls { display: none; gap: 8px; align-items: center; margin: 0 0 10px; flex-wrap: wrap; }
.reasoning.live .controls { display: flex; } .reasoning.live .step:not(.now) { display: none; }
.reasoning .controls input { flex: 1 1 160px; max-width: 420px; min-height: 32px; }
.reasoning button { min-width: 40px; min-height: 36px; border: 1px solid var(--line); border-radius: 6px; font: inherit;
  background: var(--panel); color: var(--text); cursor: pointer; }
.cells { --side: min(36px, 400px / var(--n), 82vw / var(--n)); display: grid; width: calc(var(--n) * var(--side));
  grid-template-columns: repeat(var(--n), 1fr); font-size: calc(var(--side) * .56); border: 1px solid var(--soft); }
.cells i { height: var(--side); font-style: normal; display: flex; align-items: center; justify-content: center;
  box-shadow: inset 0 0 0 .5px var(--line); overflow: hidden; }
.cells i.v, .says span.v { background: color-mix(in srgb, var(--tone) var(--a), transparent); }
.r { --tone: var(--good); } .w { --tone: var(--open); } .cells i.w { text-decoration: underline wavy var(--open); }
.cells i.g { font-weight: 700; color: var(--text); }
.cells i.c { outline: 2px solid var(--link); outline-offset: -3px; }
.cells i.x { border-left: 2px solid var(--soft); } .cells i.y { border-top: 2px solid var(--soft); }
.s0 { --a: 4%; } .s1 { --a: 9%; } .s2 { --a: 14%; } .s3 { --a: 19%; } .s4 { --a: 24%; } .s5 { --a: 30%; }
.s6 { --a: 36%; } .s7 { --a: 42%; } .s8 { --a: 48%; } .s9 { --a: 56%; }
.picture i.w { box-shadow: inset 0 0 0 calc(var(--side) * .16) var(--open); }
.cells.picture i { background: none; text-decoration: none; color: transparent; }
.cells.maze i.kwall { background: #57606a; } .cells.maze i.kpath { background: #3f8ae0; }
.cells.maze i.kend { background: #b565c9; color: #fff; }
.cells.arc i.k0 { background: #000; box-shadow: inset 0 0 0 .5px #777; } .cells.arc i.k1 { background: #0074d9; }
.cells.arc i.k2 { background: #ff4136; } .cells.arc i.k3 { background: #2ecc40; }
.cells.arc i.k4 { background: #ffdc00; } .cells.arc i.k5 { background: #aaa; }
.cells.arc i.k6 { background: #f012be; } .cells.arc i.k7 { background: #ff851b; }
.cells.arc i.k8 { background: #7fdbff; } .cells.arc i.k9 { background: #870c25; }
.settled i { background: color-mix(in srgb, var(--link) var(--a), transparent); color: var(--soft); }
.says { max-width: 46em; margin: 0; line-height: 2.3; } .says span { padding: 1px 3px; border-radius: 3px;
  white-space: nowrap; } .says .q { color: var(--soft); } .says rt { color: var(--open); font-size: 11px; }
.says .c { box-shadow: 0 2px 0 var(--link); }
@media print { .reasoning .controls { display: none !important; } .reasoning .step { display: block !important; }
  .reasoning figure { break-inside: avoid; } .reasoning .step { min-width: 0; max-width: 17em; }
  .cells { --side: min(20px, 170px / var(--n)); print-color-adjust: exact; }
  .says span, .cells i { print-color-adjust: exact; } }
</style>"""

SCRIPT = """<script>
for (const box of document.querySelectorAll('.reasoning:has(input)')) {
  const steps = [...box.querySelectorAll('.step')], slider = box.querySelector('input');
  const [back, play, on] = box.querySelectorAll('button');
  let timer = null;
  const show = number => {
    slider.value = Math.min(Math.max(number, 1), steps.length);
    steps.forEach((step, i) => step.classList.toggle('now', i + 1 == slider.value));
    slider.setAttribute('aria-valuetext', steps[slider.value - 1].querySelector('figcaption').textContent);
  };
  const stop = () => { clearInterval(timer); timer = null; play.textContent = 'play'; };
  const move = by => { stop(); show(+slider.value + by); };
  slider.addEventListener('input', () => move(0));
  back.addEventListener('click', () => move(-1));
  on.addEventListener('click', () => move(1));
  play.addEventListener('click', () => {
    if (timer) return stop();
    if (+slider.value === steps.length) show(1);
    play.textContent = 'stop';
    timer = setInterval(() => { show(+slider.value + 1); if (+slider.value === steps.length) stop(); }, 700);
  });
  box.classList.add('live');
  show(steps.length);
}
</script>"""
