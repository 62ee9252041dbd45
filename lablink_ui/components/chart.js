// A small line chart: time on x, 0 to 100 on y. Colours come from the page's tokens.
const W = 600, H = 130, LEFT = 34, BOTTOM = 18;

export default {
  props: { label: String, series: Array },
  template: `
  <figure class="chart" style="margin: 0">
    <figcaption class="legend"><strong>{{ label }}</strong><span v-for="s in series" :key="s.key"><i :style="{ background: s.color }"></i>{{ s.label }} {{ latest(s.key) }}</span></figcaption>
    <svg :viewBox="'0 0 ' + ${W} + ' ' + ${H}" preserveAspectRatio="none" role="img" :aria-label="summary">
      <g v-for="y in [0, 50, 100]" :key="y"><line class="axis" x1="${LEFT}" x2="${W}" :y1="at(y)" :y2="at(y)" vector-effect="non-scaling-stroke"/></g>
      <path v-for="s in series" :key="s.key" :d="path(s.key)" fill="none" :stroke="s.color" stroke-width="1.8" vector-effect="non-scaling-stroke"/>
    </svg>
    <div class="legend" style="justify-content: space-between"><span>{{ span[0] }}</span><span>{{ points.length ? '0 – 100 %' : 'No measurements yet' }}</span><span>{{ span[1] }}</span></div>
  </figure>`,
  data: () => ({ points: [] }),
  computed: {
    range() {
      const from = this.points.length ? Date.parse(this.points[0].at) : 0;
      const to = this.points.length ? Date.parse(this.points[this.points.length - 1].at) : 1;
      return [from, Math.max(to, from + 60000)];
    },
    span() {
      return this.points.length ? this.range.map((t) => new Date(t).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })) : ["", ""];
    },
    summary() {
      return `${this.label}: ` + this.series.map((s) => `${s.label} ${this.latest(s.key)}`).join(", ");
    },
  },
  methods: {
    reset(points) {
      this.points = points;
    },
    at: (y) => H - BOTTOM - (y / 100) * (H - BOTTOM - 6),
    path(key) {
      const [from, to] = this.range;
      let pen = "M", d = "";
      for (const p of this.points) {
        if (p[key] == null) { pen = "M"; continue; }
        d += `${pen}${(LEFT + ((Date.parse(p.at) - from) / (to - from)) * (W - LEFT)).toFixed(1)},${this.at(p[key]).toFixed(1)}`;
        pen = "L";
      }
      return d;
    },
    latest(key) {
      const known = this.points.filter((p) => p[key] != null);
      return known.length ? Math.round(known[known.length - 1][key]) + " %" : "–";
    },
  },
};
