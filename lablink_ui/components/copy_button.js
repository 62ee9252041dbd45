// Copies a text; the label says for a moment that it was done.
export default {
  props: { label: String, text: String },
  template: `<button type="button" class="button small" @click="copy"><span aria-live="polite">{{ said || label }}</span></button>`,
  data: () => ({ said: "" }),
  methods: {
    async copy() {
      this.said = (await window.lablink.copy(this.text)) ? "Copied" : "Select it by hand";
      setTimeout(() => (this.said = ""), 2000);
    },
  },
};
