// A moment that people choose by their own clock; the server gets it with its time zone.
export default {
  props: { name: String, label: String, at: String, testid: String },
  template: `
  <div class="field"><label :for="name">{{ label }}</label>
    <input class="input" type="datetime-local" :id="name" :name="name" :data-testid="testid" :value="typed ?? local" @input="tell"></div>`,
  emits: ["choose"],
  data: () => ({ typed: null }),
  watch: {
    at() {
      this.typed = null;
    },
  },
  computed: {
    local() {
      if (!this.at) return "";
      const at = new Date(this.at);
      return new Date(at.getTime() - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
    },
  },
  methods: {
    tell(event) {
      this.typed = event.target.value;
      const at = new Date(event.target.value);
      this.$emit("choose", isNaN(at) ? "" : at.toISOString());
    },
  },
};
