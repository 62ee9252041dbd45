// Says that somebody is there: when the page opens, and when it is clicked or typed on; not more often than needed.
const QUIET_MS = 15000;
const SIGNS = ["pointerdown", "keydown", "visibilitychange"];

export default {
  template: `<span hidden></span>`,
  mounted() {
    this.last = -QUIET_MS;
    this.look = () => {
      if (document.visibilityState !== "visible" || performance.now() - this.last < QUIET_MS) return;
      this.last = performance.now();
      this.$emit("use");
    };
    for (const sign of SIGNS) document.addEventListener(sign, this.look, { passive: true });
    this.look();
  },
  unmounted() {
    for (const sign of SIGNS) document.removeEventListener(sign, this.look);
  },
};
