// A small line chart: time on x, 0 to 100 on y. Colours come from the page's tokens.
const W = 600, H = 120, EDGE = 4;
// A longer silence is shown as one.
const GAP_MS = 11 * 60 * 1000;

export default {
  props: { label: String, series: Array },
  template: `
  <figure class="chart">
    <figcaption class="legend"><strong>{{ label }}</strong><span v-for="s in series" :key="s.key"><i :class="s.tone"></i>{{ s.label }} {{ latest(s.key) }}</span></figcaption>
    <div class="plot">
      <svg :viewBox="'0 0 ' + ${W} + ' ' + ${H}" preserveAspectRatio="none" role="img" :aria-label="summary">
        <line v-for="y in [0, 50, 100]" :key="y" class="axis" x1="0" x2="${W}" :y1="at(y)" :y2="at(y)" vector-effect="non-scaling-stroke"/>
        <path v-for="s in series" :key="s.key" :class="s.tone" :d="path(s.key)" fill="none" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round" vector-effect="non-scaling-stroke"/>
      </svg>
      <span v-if="!points.length" class="none">No measurements yet</span>
      <div class="scale" aria-hidden="true"><span>100 %</span><span>50 %</span><span>0</span></div>
    </div>
    <div v-if="points.length" class="legend ends"><span>{{ span[0] }}</span><span>{{ span[1] }}</span></div>
  </figure>`,
  data: () => ({ points: [] }),
  computed: {
    range() {
      const from = this.points.length ? Date.parse(this.points[0].at) : 0;
      const to = this.points.length ? Date.parse(this.points[this.points.length - 1].at) : 1;
      return [from, Math.max(to, from + 60000)];
    },
    span() {
      return this.range.map((t) => new Date(t).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
    },
    summary() {
      return `${this.label}: ` + this.series.map((s) => `${s.label} ${this.latest(s.key)}`).join(", ");
    },
  },
  methods: {
    reset(points) {
      this.points = points;
    },
    at: (y) => H - EDGE - (y / 100) * (H - 2 * EDGE),
    path(key) {
      const [from, to] = this.range;
      let last = null, d = "";
      for (const p of this.points) {
        if (p[key] == null) { last = null; continue; }
        const time = Date.parse(p.at), isApart = last === null || time - last > GAP_MS;
        const place = `${(((time - from) / (to - from)) * W).toFixed(1)},${this.at(p[key]).toFixed(1)}`;
        // A point on its own is drawn too: a line of no length with round ends.
        d += isApart ? `M${place}h.1` : `L${place}`;
        last = time;
      }
      return d;
    },
    latest(key) {
      const known = this.points.filter((p) => p[key] != null);
      return known.length ? Math.round(known[known.length - 1][key]) + " %" : "–";
    },
  },
};
