// A question before something that cannot be undone. The browser's own dialog: focus stays in it, Escape cancels.
export default {
  template: `
  <dialog ref="dialog" class="ask" role="alertdialog" aria-labelledby="ask-title" aria-describedby="ask-body" @cancel.prevent="answer(false)">
    <h2 id="ask-title">{{ title }}</h2><p id="ask-body">{{ body }}</p>
    <div class="row">
      <button type="button" class="button" data-testid="confirm-cancel" ref="cancel" @click="answer(false)">Cancel</button>
      <button type="button" class="button primary" :class="{ danger }" data-testid="confirm-submit" @click="answer(true)">{{ verb }}</button>
    </div>
  </dialog>`,
  data: () => ({ title: "", body: "", verb: "OK", danger: true }),
  methods: {
    ask(title, body, verb, danger) {
      Object.assign(this, { title, body, verb, danger });
      if (!this.$refs.dialog.open) this.$refs.dialog.showModal();
      this.$nextTick(() => this.$refs.cancel.focus());
    },
    answer(yes) {
      this.$refs.dialog.close();
      this.$emit("answer", yes);
    },
  },
};
