// Terminals in tabs. Each has a websocket of its own, which is opened anew, from the byte where it broke off, when it breaks.
const INPUT = 0, RESIZE = 1, ACKNOWLEDGE = 2;
const MOST = 8, FRAME = 16 * 1024, ACKNOWLEDGE_BYTES = 32 * 1024, ACKNOWLEDGE_MS = 300;
const SILENT_MS = 12000, FIRST_RETRY_MS = 200, LAST_RETRY_MS = 4000;
const OVER = 4410, NOT_YOURS = 4403, TOO_SLOW = 4408;
const COLOURS = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
const KEYS = [["Esc", "\x1b"], ["Tab", "\t"], ["←", "\x1b[D"], ["↑", "\x1b[A"], ["↓", "\x1b[B"], ["→", "\x1b[C"]];
const KEY_NAMES = { "←": "Left", "↑": "Up", "↓": "Down", "→": "Right" };
// What an emulator says by itself when a program asks it something: never twice, and not for old questions.
const ANSWER = /^\x1b(\[[?>=]?[\d;]*[cRn]|\[\?[\d;]+\$y|[P\]])/;
const bytes = new TextEncoder();

export default {
  props: { base: String, claim: Number, testid: String, hostname: String, watch: Boolean, resourcePath: String },
  template: `
  <div class="terminals" :class="{ without: !tabs.length, watch }">
    <div class="terminal-tools">
      <div role="tablist" aria-label="Terminals" class="terminal-tabs" @keydown="walk">
        <button v-for="(t, i) in tabs" :key="t.id" type="button" role="tab" :id="'terminal-tab-' + t.id" :data-testid="'terminal-tab-' + (i + 1)"
          :aria-selected="String(t.id === current)" :aria-controls="'terminal-' + t.id" :tabindex="t.id === current ? 0 : -1"
          :data-status="t.state" @click="choose(t.id)">{{ t.title }}</button>
      </div>
      <button v-if="!watch" type="button" class="button small" data-testid="terminal-new" :disabled="opening || live.length >= ${MOST}" @click="open">New</button>
      <span class="push"></span>
      <span v-if="now && now.state !== 'open'" class="chip" :class="now.state === 'over' ? 'idle' : 'busy'" data-testid="terminal-state" :data-status="now.state">{{ words[now.state] }}</span>
      <template v-if="now">
        <button type="button" class="button small" @click="copy">{{ copied ? 'Copied' : 'Copy' }}</button>
        <button v-if="types" type="button" class="button small" @click="paste">Paste</button>
        <button v-if="!watch || now.state === 'over'" type="button" class="button small" data-testid="terminal-close" :aria-label="'Close ' + now.title" @click="close">Close</button>
      </template>
    </div>
    <p v-if="error" class="error" role="alert">{{ error }}</p>
    <div class="terminal-screens" :data-testid="testid" ref="screens">
      <div v-for="t in tabs" :key="t.id" v-show="t.id === current" class="terminal-screen" role="tabpanel" :id="'terminal-' + t.id"
        :aria-labelledby="'terminal-tab-' + t.id" :class="{ away: t.state !== 'open' }"></div>
      <div v-if="!tabs.length" class="sub terminal-none">{{ none }}</div>
    </div>
    <div v-if="now && types" class="terminal-keys" role="group" aria-label="Keys">
      <button type="button" class="button small" :aria-pressed="String(control)" @click="control = !control; focus()">Ctrl</button>
      <button v-for="[name, sequence] in keys" :key="name" type="button" class="button small" :aria-label="keyNames[name] || name" @click="press(sequence)">{{ name }}</button>
    </div>
    <p class="sub" role="status" data-testid="terminal-said">{{ said }}</p>
    <p v-if="now && types" class="sub terminal-hint" :id="'terminal-hint-' + claim">Every key goes to the terminal; Ctrl+M leads out of it. Ctrl+Shift+C copies, Ctrl+Shift+V pastes.</p>
  </div>`,
  data: () => ({
    tabs: [], current: null, opening: false, error: "", copied: false, control: false, mayType: true, number: 0,
    words: { connecting: "Connecting", reconnecting: "Reconnecting", over: "Ended" }, keys: KEYS, keyNames: KEY_NAMES,
  }),
  computed: {
    now() { return this.tabs.find((t) => t.id === this.current); },
    live() { return this.tabs.filter((t) => t.state !== "over"); },
    types() { return this.mayType; },
    none() { return this.watch ? "No terminal is open." : "No terminal is open yet."; },
    said() {
      if (!this.now) return "";
      if (this.now.state === "over") return `${this.now.title} has ended: ${this.now.why}.`;
      if (this.now.state === "reconnecting") return "The connection was lost. Reconnecting; your shell goes on meanwhile.";
      return this.now.machine === false ? "Waiting for the machine." : "";
    },
  },
  created() {
    // Not Vue's to watch: the emulators and their connections, by terminal.
    this.lines = new Map();
    this.emulator = import("nicegui-xterm");
  },
  mounted() {
    const sheet = document.createElement("link");
    Object.assign(sheet, { rel: "stylesheet", href: `${window.path_prefix || ""}${this.resourcePath}/xterm.css` });
    document.head.append(sheet);
    this.sizes = new ResizeObserver(() => this.fit());
    this.sizes.observe(this.$refs.screens);
    this.themes = new MutationObserver(() => this.lines.forEach((line) => (line.term.options.theme = this.theme())));
    this.themes.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    this.watching = setInterval(() => this.lines.forEach((line) => this.check(line)), 1000);
    this.onOnline = () => this.lines.forEach((line) => line.retry && this.connect(line));
    this.onConnect = (event) => { if (!this.watch && this.$el.offsetParent) { event.preventDefault(); this.goOn(); } };
    window.addEventListener("online", this.onOnline);
    window.addEventListener("lablink-connect", this.onConnect);
  },
  unmounted() {
    window.removeEventListener("online", this.onOnline);
    window.removeEventListener("lablink-connect", this.onConnect);
    clearInterval(this.watching);
    this.sizes.disconnect();
    this.themes.disconnect();
    [...this.lines.values()].forEach((line) => this.drop(line));
  },
  methods: {
    // What the page says.
    show(ids, starts, mayType) {
      this.mayType = mayType;
      this.lines.forEach((line) => (line.term.options.disableStdin = !mayType));
      this.ids = ids;
      ids.forEach((id) => this.tabs.some((t) => t.id === id) || this.add(id));
      for (const t of this.live) if (!ids.includes(t.id) && !t.isNew) this.end(t, "it is not open any more", true);
      if (starts && !this.tabs.length) this.open();
    },

    // What people do.
    async open() {
      if (this.opening) return;
      this.opening = true;
      this.error = "";
      try {
        const response = await fetch(`${this.base}?claim=${this.claim}`, { method: "POST" });
        const answer = await response.json();
        if (response.ok) this.add(answer.id, true);
        else this.error = answer.error.message;
      } catch {
        this.error = "The server does not answer. Check your connection and try again.";
      }
      this.opening = false;
    },
    async close() {
      const t = this.now, line = this.lines.get(t.id);
      if (t.state !== "over" && !this.watch) {
        try {
          await fetch(`${this.base}/${t.id}?claim=${this.claim}`, { method: "DELETE" });
        } catch {
          this.error = "The server does not answer: the terminal was not closed.";
          return;
        }
      }
      if (line) this.drop(line);
      const at = this.tabs.indexOf(t);
      this.tabs.splice(at, 1);
      this.current = (this.tabs[at] || this.tabs[at - 1])?.id ?? null;
      this.$nextTick(() => this.current ? this.focus() : this.$el.querySelector("[data-testid=terminal-new]")?.focus());
    },
    goOn() {
      this.$el.scrollIntoView({ block: "nearest" });
      if (this.live.length) this.choose(this.now && this.now.state !== "over" ? this.current : this.live[0].id);
      else this.open();
    },
    choose(id) {
      this.current = id;
      this.$nextTick(() => { this.fit(); this.focus(); });
    },
    walk(event) {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step || !this.tabs.length) return;
      const at = this.tabs.findIndex((t) => t.id === this.current);
      this.current = this.tabs[(at + step + this.tabs.length) % this.tabs.length].id;
      this.$nextTick(() => { this.fit(); this.leave(); });
    },
    async copy() {
      const line = this.lines.get(this.current);
      const text = line.term.getSelection() || this.screen(line.term);
      try {
        await navigator.clipboard.writeText(text);
      } catch {
        line.term.textarea.value = text;
        line.term.textarea.select();
        document.execCommand("copy");
      }
      this.copied = true;
      setTimeout(() => (this.copied = false), 1500);
    },
    async paste() {
      try {
        this.lines.get(this.current).term.paste(await navigator.clipboard.readText());
        this.focus();
      } catch {
        this.error = "The browser does not let this page read the clipboard. Paste with the keyboard, or by a long press.";
      }
    },
    press(sequence) {
      this.type(this.lines.get(this.current), sequence);
      this.focus();
    },
    focus() { this.lines.get(this.current)?.term.focus(); },
    leave() { this.$el.querySelector('[role="tab"][aria-selected="true"]')?.focus(); },
    screen(term) {
      const buffer = term.buffer.active, rows = [];
      for (let y = 0; y < term.rows; y++) rows.push(buffer.getLine(buffer.viewportY + y)?.translateToString(true) ?? "");
      return rows.join("\n").trimEnd();
    },

    // One terminal.
    async add(id, isMine) {
      // The page may have heard of it before we were answered.
      if (this.tabs.some((t) => t.id === id)) return this.choose(id);
      const t = { id, title: `Terminal ${++this.number}`, state: "connecting", why: "", machine: true, isNew: isMine };
      this.tabs.push(t);
      if (isMine || this.current === null || this.now?.state === "over") this.current = id;
      const { Terminal, FitAddon, WebLinksAddon } = await this.emulator;
      await this.$nextTick();
      const place = document.getElementById(`terminal-${id}`);
      if (!place) return;
      const term = new Terminal({
        fontFamily: 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace', fontSize: 13, scrollback: 5000,
        minimumContrastRatio: 4.5, cursorBlink: !matchMedia("(prefers-reduced-motion: reduce)").matches, theme: this.theme(),
        disableStdin: !this.mayType, screenReaderMode: false,
      });
      const line = { id, tab: this.tabs.find((each) => each.id === id), term, fit: new FitAddon(), got: 0, processed: 0, told: 0, shown: 0, retryMs: FIRST_RETRY_MS, heard: 0 };
      this.lines.set(id, line);
      term.loadAddon(line.fit);
      term.loadAddon(new WebLinksAddon());
      term.open(place);
      term.textarea.setAttribute("aria-label", `${t.title} on ${this.hostname}`);
      term.textarea.setAttribute("aria-describedby", `terminal-hint-${this.claim}`);
      term.attachCustomKeyEventHandler((event) => this.onKey(line, event));
      term.onData((text) => this.onData(line, text));
      term.onBinary((text) => this.send(line, INPUT, Uint8Array.from(text, (each) => each.charCodeAt(0))));
      term.onResize(() => this.tellSize(line));
      if (id === this.current) { this.fit(); if (isMine) term.focus(); }
      this.connect(line);
    },
    connect(line) {
      clearTimeout(line.retry);
      line.retry = null;
      this.disconnect(line);
      const scheme = location.protocol === "https:" ? "wss:" : "ws:";
      const socket = new WebSocket(`${scheme}//${location.host}${this.base}/${line.id}?from=${line.got}`);
      socket.binaryType = "arraybuffer";
      line.socket = socket;
      line.heard = Date.now();
      socket.onopen = () => {
        line.retryMs = FIRST_RETRY_MS;
        line.tab.isNew = false;
        line.tab.state = "open";
        this.tellSize(line);
      };
      socket.onmessage = ({ data }) => {
        line.heard = Date.now();
        if (typeof data === "string") this.hear(line, JSON.parse(data));
        else this.take(line, data);
      };
      socket.onclose = ({ code }) => line.socket === socket && this.onClose(line, code);
    },
    onClose(line, code) {
      line.socket = null;
      if (line.tab.state === "over") return;
      if (code === OVER || code === NOT_YOURS) return this.end(line.tab, line.why || "it is not open in this browser any more");
      if (code === TOO_SLOW && this.watch) { line.got = line.processed = 0; line.term.reset(); }
      if (line.tab.state === "open") line.tab.state = "reconnecting";
      // Jitter: a whole lecture hall comes back at the same moment.
      line.retry = setTimeout(() => this.connect(line), line.retryMs * (0.5 + Math.random() / 2));
      line.retryMs = Math.min(line.retryMs * 2, LAST_RETRY_MS);
    },
    disconnect(line) {
      const socket = line.socket;
      line.socket = null;
      if (socket) socket.close();
    },
    check(line) {
      // A cut cable says nothing: the server's beats do, by missing.
      if (line.socket && Date.now() - line.heard > SILENT_MS) { this.disconnect(line); this.onClose(line, 0); }
    },
    hear(line, said) {
      if ("machine" in said) line.tab.machine = said.machine;
      if ("shown" in said) line.shown = line.got ? 0 : said.shown;
      if ("gap" in said && line.got) line.term.write(`\r\n\x1b[2m[${said.gap.toLocaleString()} bytes were not kept]\x1b[0m\r\n`);
      if ("size" in said && this.watch) line.term.resize(...said.size);
      if ("over" in said) { line.why = said.over; this.end(line.tab, said.over); }
    },
    take(line, data) {
      const offset = Number(new DataView(data).getBigUint64(0));
      const content = new Uint8Array(data, 8);
      line.got = offset + content.length;
      const upTo = line.got;
      // The emulator puts characters that are cut in two together by itself.
      line.term.write(content, () => {
        line.processed = upTo;
        if (upTo - line.told >= ACKNOWLEDGE_BYTES) this.acknowledge(line);
        else line.telling ??= setTimeout(() => this.acknowledge(line), ACKNOWLEDGE_MS);
      });
    },
    acknowledge(line) {
      clearTimeout(line.telling);
      line.telling = null;
      const content = new Uint8Array(8);
      new DataView(content.buffer).setBigUint64(0, BigInt(line.processed));
      line.told = line.processed;
      this.send(line, ACKNOWLEDGE, content);
    },
    onKey(line, event) {
      const isControl = event.ctrlKey && !event.altKey && !event.metaKey, key = event.key.toLowerCase();
      if (isControl && !event.shiftKey && key === "m") {
        event.preventDefault();
        if (event.type === "keydown") this.leave();
        return false;
      }
      if (isControl && event.shiftKey && key === "c") {
        event.preventDefault();
        if (event.type === "keydown") this.copy();
        return false;
      }
      // The browser's own paste does the rest.
      return !(isControl && event.shiftKey && key === "v");
    },
    onData(line, text) {
      if (ANSWER.test(text) && (this.watch || line.processed < line.shown)) return;
      if (this.control && text.length === 1) {
        this.control = false;
        text = String.fromCharCode(text.toUpperCase().charCodeAt(0) & 31);
      }
      this.type(line, text);
    },
    type(line, text) {
      if (!this.mayType) return;
      const content = bytes.encode(text);
      for (let at = 0; at < content.length; at += FRAME) this.send(line, INPUT, content.subarray(at, at + FRAME));
    },
    tellSize(line) {
      if (this.watch) return;
      const content = new Uint8Array(4), view = new DataView(content.buffer);
      view.setUint16(0, line.term.cols);
      view.setUint16(2, line.term.rows);
      this.send(line, RESIZE, content);
    },
    send(line, what, content) {
      if (line.socket?.readyState !== WebSocket.OPEN) return;
      const frame = new Uint8Array(content.length + 1);
      frame[0] = what;
      frame.set(content, 1);
      line.socket.send(frame);
    },
    end(t, why, isGuess) {
      // What the terminal itself says is better than what its absence says: it has a moment to say it.
      const line = this.lines.get(t.id);
      if (isGuess && line?.socket) return setTimeout(() => t.state === "over" || this.ids.includes(t.id) || this.end(t, why), 2000);
      t.state = "over";
      t.why = why;
      if (line) { clearTimeout(line.retry); line.retry = null; this.disconnect(line); line.term.options.disableStdin = true; }
    },
    drop(line) {
      clearTimeout(line.retry);
      clearTimeout(line.telling);
      this.disconnect(line);
      line.term.dispose();
      this.lines.delete(line.id);
    },
    fit() {
      const line = this.lines.get(this.current);
      if (line && !this.watch && this.$refs.screens.offsetParent) line.fit.fit();
    },
    theme() {
      const style = getComputedStyle(document.documentElement), of = (name) => style.getPropertyValue(name).trim();
      const theme = {
        background: of("--term"), foreground: of("--term-ink"), cursor: of("--term-ink"), cursorAccent: of("--term"), selectionBackground: of("--term-selected"),
      };
      for (const name of COLOURS) {
        theme[name] = of(`--term-${name}`);
        theme["bright" + name[0].toUpperCase() + name.slice(1)] = of(`--term-bright-${name}`) || of(`--term-${name}`);
      }
      return theme;
    },
  },
};
