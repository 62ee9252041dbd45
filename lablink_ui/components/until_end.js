// The time until a moment, by the server's clock; the full date in the reader's time zone is its title.
export default {
  props: { at: String },
  template: `<time v-if="at" :datetime="at" :title="full">{{ left }}</time>`,
  data: () => ({ now: window.lablink.now() }),
  mounted() {
    this.timer = setInterval(() => (this.now = window.lablink.now()), 1000);
  },
  unmounted() {
    clearInterval(this.timer);
  },
  computed: {
    left() {
      const s = Math.max(0, Math.ceil((Date.parse(this.at) - this.now) / 1000));
      if (s < 90) return `${s} s`;
      if (s < 5400) return `${Math.floor(s / 60)} min`;
      return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
    },
    full() {
      return window.lablink.full(this.at);
    },
  },
};
