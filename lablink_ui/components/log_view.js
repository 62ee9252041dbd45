// A log people can read, search, filter, follow, hold and save. It keeps the first and last lines, and of those it
// keeps only a window in the page: twenty thousand lines scroll as twenty do.
const HEAD = 2000, TAIL = 18000, WINDOW = 400, STEP = 200, NEAR = 300;
const LEVELS = { error: "error", warn: "warning", info: "info", debug: "debug" };
const LEAST = [["", "All levels"], ["warn", "Warnings and errors"], ["error", "Errors"]];

export default {
  props: { label: String, testid: String, href: String },
  template: `
  <section class="card log-card" :aria-label="label">
    <div class="log-tools">
      <h2>{{ label }}</h2>
      <select v-if="sources.length > 1" class="input" :aria-label="'Source of lines in ' + label" :data-testid="testid + '-source'" v-model="source">
        <option value="">All sources</option><option v-for="s in sources" :key="s" :value="s">{{ s }}</option></select>
      <select class="input" :aria-label="'Level of lines in ' + label" :data-testid="testid + '-level'" v-model="least">
        <option v-for="l in least_words" :key="l[0]" :value="l[0]">{{ l[1] }}</option></select>
      <div class="log-search" role="search">
        <input class="input" type="search" :aria-label="'Search in ' + label" placeholder="Search" :data-testid="testid + '-search'"
          v-model="query" @keydown.enter.prevent="go($event.shiftKey ? -1 : 1)" @keydown.escape="query = ''">
        <span class="sub" role="status" :data-testid="testid + '-count'">{{ countText }}</span>
        <button type="button" class="button small" aria-label="Previous match" title="Previous match (Shift+Enter)" :disabled="!hits.length" @click="go(-1)">↑</button>
        <button type="button" class="button small" aria-label="Next match" title="Next match (Enter)" :disabled="!hits.length" @click="go(1)">↓</button>
        <label v-if="query" class="log-only"><input type="checkbox" v-model="only"> Only matches</label>
      </div>
      <div class="log-ends">
        <button type="button" class="button small" :aria-pressed="String(follow)" :data-testid="testid + '-follow'" @click="toggle">{{ follow ? 'Following' : news ? 'Follow (' + news + ' new)' : 'Follow' }}</button>
        <button type="button" class="button small" @click="copy"><span aria-live="polite">{{ said || 'Copy' }}</span></button>
        <a class="button small" :href="href" download :data-testid="testid + '-download'">Download</a>
      </div>
    </div>
    <div ref="box" class="log" role="log" aria-live="off" tabindex="0" :aria-label="label" :data-testid="testid" @scroll="onScroll">
      <div v-for="l in shown" :key="l.key" class="line" :class="[l.level + '-line', { here: l === here }]">
        <time :datetime="l.iso">{{ l.clock }}</time><span v-if="l.name" class="level">{{ l.name }}</span><span v-if="l.source && sources.length > 1" class="source">{{ l.source }}</span><span class="said"><template v-if="needle"><template v-for="(p, i) in parts(l.message)" :key="i"><mark v-if="i % 2">{{ p }}</mark><template v-else>{{ p }}</template></template></template><template v-else>{{ l.message }}</template></span></div>
      <div v-if="!found.length" class="sub">{{ lines.length ? 'No line fits.' : 'No lines yet.' }}</div>
    </div>
  </section>`,
  data: () => ({ lines: [], query: "", source: "", least: "", only: true, from: 0, follow: true, news: 0, here: null, sources: [], said: "", least_words: LEAST }),
  created() {
    this.lasts = {};
    this.top = this.turn = 0;
  },
  computed: {
    needle() {
      return this.query.toLowerCase();
    },
    chosen() {
      const { source, least } = this, bad = least === "error" ? ["error"] : ["error", "warn"];
      return source || least ? this.lines.filter((l) => (!source || l.source === source) && (!least || bad.includes(l.level))) : this.lines;
    },
    hits() {
      return this.needle ? this.chosen.filter((l) => l.low.includes(this.needle)) : [];
    },
    found() {
      return this.needle && this.only ? this.hits : this.chosen;
    },
    shown() {
      const from = this.follow ? Math.max(0, this.found.length - WINDOW) : Math.min(this.from, Math.max(0, this.found.length - 1));
      return this.found.slice(from, from + WINDOW);
    },
    countText() {
      if (!this.needle) {
        const all = this.lines.length === 1 ? "1 line" : `${this.lines.length} lines`;
        return this.chosen.length === this.lines.length ? all : `${this.chosen.length} of ${all}`;
      }
      const at = this.here ? this.hits.indexOf(this.here) + 1 : 0;
      return at ? `${at} of ${this.hits.length}` : `${this.hits.length} ${this.hits.length === 1 ? "match" : "matches"}`;
    },
  },
  watch: {
    query() {
      this.begin();
    },
    source() {
      this.begin();
    },
    least() {
      this.begin();
    },
    only() {
      if (this.here) this.$nextTick(() => this.show(this.here));
      else this.begin();
    },
  },
  methods: {
    append(rows, kind) {
      const last = this.lasts[kind] ?? -1, fresh = rows.filter((row) => row[0] > last);
      if (!fresh.length) return;
      this.lasts[kind] = fresh[fresh.length - 1][0];
      const before = this.lines.length;
      const lines = this.lines.concat(fresh.map((row) => line(kind, row)));
      const surplus = lines.length - HEAD - TAIL;
      if (surplus > 0) {
        const gone = lines.splice(HEAD, surplus + 1);
        lines.splice(HEAD, 0, gap(gone));
      }
      this.lines = Object.freeze(lines);
      for (const row of fresh) if (row[3] && !this.sources.includes(row[3])) this.sources.push(row[3]);
      if (this.follow) this.toEnd();
      else {
        this.news += fresh.length;
        // What was left out in the middle moves the rest up.
        if (before + fresh.length > lines.length && this.from > HEAD) this.from = Math.max(HEAD, this.from - (before + fresh.length - lines.length));
      }
    },
    begin() {
      this.here = null;
      this.from = Math.max(0, this.found.length - WINDOW);
      this.toEnd();
    },
    toEnd(ms = 50) {
      // What the browser tells of scrolling meanwhile is nobody's wish, or an older one.
      const turn = (this.turn += 1);
      const pin = () => this.$refs.box && (this.$refs.box.scrollTop = this.$refs.box.scrollHeight);
      const settled = () => {
        if (turn !== this.turn) return;
        if (this.follow) pin();
        this.top = this.$refs.box?.scrollTop ?? 0;
        this.settling = false;
      };
      this.settling = true;
      this.$nextTick(() => {
        pin();
        setTimeout(settled, ms);
      });
    },
    toggle() {
      this.hold(!this.follow);
      // A key that scrolls may still be at work.
      if (this.follow) this.toEnd(500);
    },
    hold(follow) {
      if (!follow && this.follow) this.from = Math.max(0, this.found.length - WINDOW);
      if (follow !== this.follow) this.news = 0;
      this.follow = follow;
    },
    onScroll() {
      if (this.settling) return;
      const box = this.$refs.box, below = box.scrollHeight - box.scrollTop - box.clientHeight;
      const isEnd = !this.follow && this.from + WINDOW >= this.found.length;
      // Up is a wish to read; the very end one to go on.
      if (this.follow && below > 40 && box.scrollTop < this.top) this.hold(false);
      else if (isEnd && below < 4 && box.scrollTop > this.top) this.hold(true);
      else if (!this.follow && box.scrollTop < NEAR && this.from > 0) this.move(-STEP);
      else if (!this.follow && below < NEAR && !isEnd) this.move(STEP);
      this.top = box.scrollTop;
    },
    // Moves the window and keeps the line at its place.
    move(by) {
      const box = this.$refs.box, kept = this.shown[by < 0 ? 0 : WINDOW - 1];
      const at = (l) => box.children[this.shown.indexOf(l)]?.offsetTop ?? 0;
      const before = at(kept) - box.scrollTop;
      this.from = Math.max(0, Math.min(this.from + by, this.found.length - WINDOW));
      this.$nextTick(() => (this.top = box.scrollTop = at(kept) - before));
    },
    go(by) {
      if (!this.hits.length) return;
      const at = this.here ? this.hits.indexOf(this.here) : by > 0 ? -1 : 0;
      this.here = this.hits[(at + by + this.hits.length) % this.hits.length];
      this.show(this.here);
    },
    show(wanted) {
      this.hold(false);
      this.from = Math.max(0, this.found.indexOf(wanted) - STEP);
      this.$nextTick(() => this.$refs.box.querySelector(".here")?.scrollIntoView({ block: "nearest" }));
    },
    parts(message) {
      const parts = [], low = message.toLowerCase();
      let from = 0;
      for (let at = low.indexOf(this.needle); at >= 0; at = low.indexOf(this.needle, from)) {
        parts.push(message.slice(from, at), message.slice(at, at + this.needle.length));
        from = at + this.needle.length;
      }
      return [...parts, message.slice(from)];
    },
    async copy() {
      const done = await window.lablink.copy(this.found.map((l) => [l.iso, l.name, l.source, l.message].filter(Boolean).join(" ")).join("\n"));
      this.said = done ? "Copied" : "Could not copy";
      setTimeout(() => (this.said = ""), 1500);
    },
  },
};

function line(kind, [id, ms, level, source, message]) {
  const at = new Date(ms);
  return Object.freeze({
    key: kind + id, level, source, message, iso: at.toISOString(), clock: at.toLocaleTimeString(),
    name: LEVELS[level] || "", low: message.toLowerCase(), gone: level === "gap" ? Number(message.replace(/\D/g, "")) : 1,
  });
}

function gap(gone) {
  const count = gone.reduce((sum, l) => sum + l.gone, 0);
  const words = `… ${count.toLocaleString("en")} lines left out of this page …`;
  return Object.freeze({ ...gone[0], key: "gap", level: "gap", source: "", message: words, name: "", low: words.toLowerCase(), gone: count });
}
