// A moment, as time passed by the server's clock; the full date in the reader's time zone is its title.
export default {
  props: { at: String },
  template: `<time v-if="at" :datetime="at" :title="full">{{ ago }}</time><span v-else>–</span>`,
  data: () => ({ now: window.lablink.now() }),
  mounted() {
    this.timer = setInterval(() => (this.now = window.lablink.now()), 1000);
  },
  unmounted() {
    clearInterval(this.timer);
  },
  computed: {
    ago() {
      return window.lablink.ago(this.at, this.now);
    },
    full() {
      return window.lablink.full(this.at);
    },
  },
};
