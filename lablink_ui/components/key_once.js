// A seat key, shown once. After a claim the page before has left it in this tab; a new one comes from the server.
export default {
  props: { words: String, verb: String, testid: String, fresh: Boolean },
  template: `
  <section class="card pad" aria-label="Seat key">
    <h2>Seat key</h2>
    <template v-if="seatKey">
      <p class="note" ref="told" tabindex="-1">Write it down now: it is shown this once. It opens this seat in another browser; whoever has it has the seat.</p>
      <div class="row">
        <output class="code" data-testid="seat-key">{{ seatKey }}</output>
        <button type="button" class="button small" data-testid="seat-key-copy" @click="copy"><span aria-live="polite">{{ said || 'Copy' }}</span></button>
        <button type="button" class="button small" data-testid="seat-key-done" @click="seatKey = ''">I have it</button>
      </div>
    </template>
    <div v-else class="row">
      <p class="sub said">{{ words }}</p>
      <button type="button" class="button small" :data-testid="testid" @click="$emit('renew')">{{ verb }}</button>
    </div>
  </section>`,
  data: () => ({ seatKey: "", said: "" }),
  mounted() {
    if (this.fresh) this.seatKey = window.lablink.takeKey();
  },
  methods: {
    show(key) {
      this.seatKey = key;
      this.$nextTick(() => this.$refs.told.focus());
    },
    async copy() {
      this.said = (await window.lablink.copy(this.seatKey)) ? "Copied" : "Select it by hand";
      setTimeout(() => (this.said = ""), 2000);
    },
  },
};
