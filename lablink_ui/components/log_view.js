// A log people can read, search and copy; it follows its end unless somebody scrolled up. Keeps the first and last lines.
const HEAD = 500, TAIL = 4500;

export default {
  props: { label: String, testid: String },
  template: `
  <div class="card">
    <div class="log-tools"><h2>{{ label }}</h2>
      <input class="input" type="search" :aria-label="'Search in ' + label" placeholder="Search" v-model="query">
      <button type="button" class="button small" @click="copy"><span aria-live="polite">{{ said || 'Copy' }}</span></button></div>
    <div ref="box" class="log" role="log" tabindex="0" :aria-label="label" :data-testid="testid" @scroll="onScroll">
      <div v-for="l in shown" :key="l.id" class="line" :class="l.level + '-line'"><time :datetime="l.at">{{ l.clock }}</time><span v-if="l.source" class="source">{{ l.source }}</span><span>{{ l.message }}</span></div>
      <div v-if="!shown.length" class="sub">{{ query ? 'No line holds these words.' : 'No lines yet.' }}</div>
    </div>
  </div>`,
  data: () => ({ lines: [], dropped: 0, query: "", follow: true, said: "" }),
  computed: {
    shown() {
      const words = this.query.toLowerCase();
      return words ? this.lines.filter((l) => l.message.toLowerCase().includes(words)) : this.lines;
    },
  },
  methods: {
    append(lines) {
      const last = this.lines.length ? this.lines[this.lines.length - 1].id : 0;
      for (const l of lines) if (l.id > last) this.lines.push(Object.freeze({ ...l, clock: new Date(l.at).toLocaleTimeString() }));
      if (this.lines.length > HEAD + TAIL) this.lines.splice(HEAD, this.lines.length - HEAD - TAIL);
      if (this.follow) this.$nextTick(() => (this.$refs.box.scrollTop = this.$refs.box.scrollHeight));
    },
    onScroll() {
      const box = this.$refs.box;
      this.follow = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    },
    async copy() {
      const done = await window.lablink.copy(this.lines.map((l) => `${l.at} ${l.message}`).join("\n"));
      this.said = done ? "Copied" : "Could not copy";
      setTimeout(() => (this.said = ""), 1500);
    },
  },
};
