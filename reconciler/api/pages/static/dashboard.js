// What the pages do beyond links and forms: look for news, keep times true, keys, theme. All of it can be missing.
"use strict";
(() => {
  const PERIOD = 5000;
  const DESTINATIONS = { j: "/", c: "/calendar", q: "/queues", d: "/drift", r: "/revisions", a: "/alerts" };
  const THEMES = [
    ["", "as the system"],
    ["light", "light"],
    ["dark", "dark"],
  ];
  const find = (selector, within = document) => within.querySelector(selector);
  const findAll = (selector, within = document) => [...within.querySelectorAll(selector)];

  // Remember what somebody chose; where storage is forbidden, until the page is left.
  const memory = {
    get(key) {
      try {
        return localStorage.getItem(key) ?? "";
      } catch {
        return "";
      }
    },
    set(key, value) {
      try {
        if (value) localStorage.setItem(key, value);
        else localStorage.removeItem(key);
      } catch {
        // Nothing is kept.
      }
    },
  };

  // ---- news -------------------------------------------------------------------------------------------------

  let isLive = memory.get("live") !== "off";
  let isLost = false;

  function refresh() {
    const live = find("#live[hx-get]");
    if (live && isLive && !document.hidden) htmx.trigger(live, "refresh");
  }

  function showLive() {
    const button = find("#live-toggle");
    if (!button) return;
    button.hidden = !find("#live[hx-get]");
    button.setAttribute("aria-pressed", String(isLive));
  }

  function toggleLive() {
    isLive = !isLive;
    memory.set("live", isLive ? "" : "off");
    showLive();
    announce(isLive ? "The page looks for news." : "The page stands still.");
    refresh();
  }

  function announce(text) {
    const news = find("#news");
    if (news) news.textContent = text;
  }

  function showTrouble(text) {
    const trouble = find("#trouble");
    if (!trouble || trouble.textContent === text) return;
    trouble.hidden = !text;
    trouble.textContent = text;
  }

  function lose() {
    if (isLost) return;
    isLost = true;
    const time = new Date().toLocaleTimeString();
    showTrouble(`The service does not answer: what you see is of ${time}. It is tried again every few seconds.`);
  }

  document.addEventListener("htmx:configRequest", (event) => {
    const { elt: live, parameters } = event.detail;
    for (const [name, value] of [...parameters.entries()]) if (value === "") parameters.delete(name);
    if (live.id === "live" && live.dataset.digest) {
      event.detail.headers["If-None-Match"] = `"${live.dataset.digest}"`;
    }
  });
  document.addEventListener("htmx:sendError", lose);
  document.addEventListener("htmx:timeout", lose);
  document.addEventListener("htmx:responseError", lose);
  document.addEventListener("htmx:beforeOnLoad", (event) => {
    if (event.detail.xhr.status >= 400) return;
    isLost = false;
    showTrouble("");
  });

  let failing = Number(find("#head")?.dataset.failing ?? 0);
  document.addEventListener("htmx:afterSettle", () => {
    const now = Number(find("#head")?.dataset.failing ?? 0);
    if (now !== failing) announce(now === 1 ? "1 job is failing now." : `${now} jobs are failing now.`);
    failing = now;
    showLive();
    keepTime();
  });

  // ---- morphing ---------------------------------------------------------------------------------------------

  if (window.Idiomorph) {
    Object.assign(Idiomorph.defaults, { ignoreActiveValue: true, restoreFocus: true });
    // What somebody opened stays open, and what is being filled in stays as it is.
    Idiomorph.defaults.callbacks.beforeNodeMorphed = (old) =>
      !(old instanceof HTMLDetailsElement && old.open && find("form", old));
    Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, element) =>
      !(name === "open" && (element instanceof HTMLDetailsElement || element instanceof HTMLDialogElement));
  }

  // ---- times ------------------------------------------------------------------------------------------------

  let skew = 0;

  function keepTime() {
    const stamp = find("#live")?.dataset.now;
    if (stamp && stamp !== keepTime.stamp) {
      keepTime.stamp = stamp;
      skew = Date.parse(stamp) - Date.now();
    }
    for (const time of findAll("time[data-relative]")) {
      const text = spell((Date.now() + skew - Date.parse(time.dateTime)) / 1000);
      if (time.textContent !== text) time.textContent = text;
    }
  }

  // As the server spells it.
  function spell(seconds) {
    const length = Math.abs(seconds);
    if (length < 1) return "now";
    const [size, unit] = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]].find(([size]) => length >= size);
    const text = `${Math.floor(length / size)}${unit}`;
    return seconds < 0 ? `in ${text}` : `${text} ago`;
  }

  // ---- theme ------------------------------------------------------------------------------------------------

  function showTheme() {
    const chosen = THEMES.find(([value]) => value === memory.get("theme")) ?? THEMES[0];
    if (chosen[0]) document.documentElement.dataset.theme = chosen[0];
    else delete document.documentElement.dataset.theme;
    const name = find("#theme-name");
    if (name) name.textContent = chosen[1];
    return chosen;
  }

  function changeTheme() {
    const index = THEMES.indexOf(showTheme());
    memory.set("theme", THEMES[(index + 1) % THEMES.length][0]);
    announce(`Theme: ${showTheme()[1]}.`);
  }

  // ---- keys -------------------------------------------------------------------------------------------------

  let isGoing = false;

  function step(by) {
    const items = findAll("[data-item]").map((row) => find("a[href], [tabindex]", row) ?? row);
    if (items.length === 0) return;
    const at = items.findIndex((item) => item.closest("[data-item]").contains(document.activeElement));
    const next = at < 0 ? (by > 0 ? 0 : items.length - 1) : Math.min(Math.max(at + by, 0), items.length - 1);
    items[next].focus();
    items[next].closest("[data-item]").scrollIntoView({ block: "nearest" });
  }

  function openHelp() {
    const help = find("#help");
    if (help && !help.open) help.showModal();
  }

  const KEYS = {
    "/": () => find("#q")?.select(),
    "?": openHelp,
    j: () => step(1),
    k: () => step(-1),
    l: toggleLive,
    t: changeTheme,
    g: () => {
      isGoing = true;
      setTimeout(() => (isGoing = false), 1500);
    },
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.closest("input, select, textarea, dialog[open]")) {
      if (event.key === "Escape" && event.target.id === "q") event.target.blur();
      return;
    }
    if (isGoing && DESTINATIONS[event.key]) {
      const root = find("a.brand").getAttribute("href").replace(/\/$/, "");
      location.assign(root + DESTINATIONS[event.key]);
    } else if (KEYS[event.key]) {
      event.preventDefault();
      KEYS[event.key]();
      return;
    }
    isGoing = false;
  });

  // ---- begin ------------------------------------------------------------------------------------------------

  for (const [id, act] of [
    ["#live-toggle", toggleLive],
    ["#theme-toggle", changeTheme],
    ["#help-open", openHelp],
  ]) {
    const button = find(id);
    if (!button) continue;
    button.hidden = false;
    button.addEventListener("click", act);
  }
  document.addEventListener("visibilitychange", refresh);
  window.addEventListener("storage", (event) => event.key === "theme" && showTheme());
  showTheme();
  showLive();
  keepTime();
  setInterval(keepTime, 1000);
  setInterval(refresh, PERIOD);
})();
