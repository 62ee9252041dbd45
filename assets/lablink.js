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
  window.lablinkClaim = async (form) => {
    const error = form.querySelector("[data-testid=claim-error]");
    const button = form.querySelector("[data-testid=claim-submit]");
    const value = (name) => form.elements[name]?.value.trim() || null;
    error.textContent = "";
    button.disabled = true;
    try {
      const body = { email: value("email") || "", pool: form.dataset.pool };
      if (value("code")) body.code = value("code");
      // By fetch and not by the socket: the browser's own cookie decides whose seat it is, in every tab.
      const response = await fetch("/api/request_vm", {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
      });
      if (response.ok) return location.assign("/seat");
      error.textContent = (await response.json()).error.message;
    } catch {
      error.textContent = "The server does not answer. Check your connection and try again.";
    }
    button.disabled = false;
  };
})();
