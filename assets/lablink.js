// Runs before anything is drawn: the theme (no flash), and whether the socket is there.
(() => {
  const root = document.documentElement;
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const theme = () => localStorage.getItem("lablink-theme") || (prefersDark.matches ? "dark" : "light");
  const apply = () => (root.dataset.theme = theme());
  apply();
  prefersDark.addEventListener("change", apply);
  window.lablinkToggleTheme = () => {
    localStorage.setItem("lablink-theme", theme() === "dark" ? "light" : "dark");
    apply();
  };
  // A page that says "one moment" looks for itself when the moment is over.
  if ("retry" in root.dataset)
    setInterval(() => fetch("/readyz").then((answer) => answer.ok && location.reload(), () => {}), 2000);
  // Moments in words, shared by our components. The server's clock counts: a laptop's may be wrong.
  const served = document.querySelector("meta[name=lablink-now]");
  const skew = served ? Date.parse(served.content) - Date.now() : 0;
  window.lablink = {
    now: () => Date.now() + skew,
    ago(stamp, now) {
      const s = Math.max(0, Math.round((now - Date.parse(stamp)) / 1000));
      if (s < 60) return `${s} s ago`;
      if (s < 3600) return `${Math.floor(s / 60)} min ago`;
      if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
      return `${Math.floor(s / 86400)} d ago`;
    },
    clock(stamp) {
      const at = new Date(stamp), isToday = new Date().toDateString() === at.toDateString();
      return isToday ? at.toLocaleTimeString() : at.toLocaleString();
    },
    full: (stamp) => new Date(stamp).toLocaleString(),
    // The clipboard's own interface is missing on plain HTTP; the old way works there. Returns whether it went well.
    async copy(text) {
      if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
      const area = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    },
    // The key of a fresh claim waits here for the seat's page, in this tab alone; who takes it has taken it.
    keepKey: (key) => key && sessionStorage.setItem("lablink-seat-key", key),
    takeKey() {
      const key = sessionStorage.getItem("lablink-seat-key") || "";
      sessionStorage.removeItem("lablink-seat-key");
      return key;
    },
  };
  // By fetch and not by the socket: the browser's own cookie decides whose seat it is, in every tab. Returns what was
  // answered, or null after the form has said why not.
  const send = async (form, path, body) => {
    const error = form.querySelector(".error"), button = form.querySelector("[type=submit]");
    error.textContent = "";
    button.disabled = true;
    try {
      const response = await fetch(path, {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
      });
      const answer = await response.json();
      if (response.ok) return answer;
      error.textContent = answer.error.message;
    } catch {
      error.textContent = "The server does not answer. Check your connection and try again.";
    }
    button.disabled = false;
    return null;
  };
  let isSigningOut = false;
  addEventListener("submit", (event) => (isSigningOut = event.target.getAttribute("action") === "/logout"));
  window.lablink.leave = (url) => isSigningOut || location.assign(url);
  let missed = 0;
  setInterval(() => {
    // NiceGUI keeps its socket here; one missed look may be a page that is still starting.
    missed = window.socket && window.socket.connected ? 0 : missed + 1;
    root.dataset.socket = missed > 3 ? "off" : "on";
  }, 500);
  // The seat's Connect: the terminals take it if they are there; else it leads to the first other connection.
  window.lablinkConnect = () => {
    if (!window.dispatchEvent(new Event("lablink-connect", { cancelable: true }))) return;
    const there = [...document.querySelectorAll("[data-testid=crd-link], [data-testid=crd-open], [data-testid=seat-link]")];
    const first = there.find((each) => each.offsetParent);
    first?.scrollIntoView({ block: "center" });
    first?.focus();
  };
  window.lablinkClaim = async (form) => {
    const body = { pool: form.dataset.pool };
    for (const name of ["email", "code", "me"]) if (form.elements[name]?.value.trim()) body[name] = form.elements[name].value.trim();
    const answer = await send(form, "/api/request_vm", body);
    if (!answer) return;
    window.lablink.keepKey(answer.seat_key);
    location.assign("/seat");
  };
  window.lablinkOpenSeat = async (form, key) => {
    if (await send(form, "/api/seat/open", { seat_key: key })) location.assign("/seat");
  };
  // A roster as it is pasted, or else the file; only read (save: false), or imported as well. Returns the answer.
  window.lablinkRoster = async (form, save) => {
    const [file] = form.elements.file.files, pasted = form.elements.people.value;
    const body = pasted.trim() || !file ? pasted : file;
    try {
      const response = await fetch(`/api/admin/pools/${form.dataset.pool}/roster?save=${save}`, {
        method: "POST", headers: { "Content-Type": "text/csv" }, body,
      });
      return await response.json();
    } catch {
      return { error: { message: "The server does not answer. Check your connection and try again." } };
    }
  };
})();
