/** Hooks for React 18 and later. A component that goes away closes its connection, and never stops a run. */

import { useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";
import { configure } from "./connect.js";
import { Session } from "./session.js";

/** @import {Options} from "./connect.js" */
/** @import {Run} from "./run.js" */
/** @import {View} from "./core/view.js" */
/** @import {EndReason, Message, RunInfo, RunStatus} from "./core/wire.js" */

/**
 * @typedef {object} RunView
 * @property {string} id
 * @property {RunStatus | "unknown"} status
 * @property {EndReason | null} reason
 * @property {string} text
 * @property {Message | null} message
 * @property {RunInfo | null} info
 * @property {Run} run to stop it, steer it, answer its requests
 */

/**
 * A session, connected while the component is mounted, and its view. Another url, session or device is another session;
 * of `token` the latest counts, the other options are those of the session's first render.
 *
 * @param {string | URL} url
 * @param {Options} options
 * @returns {{session: Session} & View}
 */
export function useSession(url, options) {
  const token = useRef(options.token);
  useEffect(() => {
    token.current = options.token;
  });
  const key = JSON.stringify([url, options.session, options.device]);
  /** @returns {{key: string, session: Session, closing?: ReturnType<typeof setTimeout>}} */
  const begin = () => {
    const latest = () => (typeof token.current === "function" ? token.current() : token.current);
    // Asleep: rendering opens nothing, neither on a server nor for a render that React throws away.
    return { key, session: new Session(configure(url, { ...options, token: latest })) };
  };
  const [kept, keep] = useState(begin);
  let current = kept;
  if (kept.key !== key) {
    current = begin(); // at once: what belongs to another session is not shown once more
    keep(current);
  }
  const { session } = current;
  // biome-ignore lint/correctness/useExhaustiveDependencies: everything else belongs to the session
  useEffect(() => {
    clearTimeout(current.closing);
    if (session.status === "closed") {
      keep(begin()); // a tree that was hidden is shown again
      return;
    }
    session.resume();
    return () => {
      // Not at once: StrictMode takes effects back only to do them again.
      current.closing = setTimeout(() => session.close());
    };
  }, [session]);
  const view = useSyncExternalStore(session.subscribe, session.getSnapshot, session.getSnapshot);
  return { session, ...view };
}

/**
 * One run of a session. The same object, and no render, until something of this run changed.
 *
 * @template {string | null | undefined} Id
 * @param {Session} session
 * @param {Id} runId null where there is none yet
 * @returns {Id extends string ? RunView : RunView | null}
 */
export function useRun(session, runId) {
  const select = useMemo(() => selection(session, runId), [session, runId]);
  return /** @type {any} */ (useSyncExternalStore(session.subscribe, select, select)); // null for null, as typed above
}

/**
 * @param {Session} session
 * @param {string | null | undefined} runId
 * @returns {() => RunView | null}
 */
function selection(session, runId) {
  if (runId === null || runId === undefined) return () => null;
  const run = session.run(runId);
  /** @type {RunView | null} */
  let last = null;
  return () => {
    const { id, status, reason, message, info } = run;
    const same =
      last !== null &&
      last.id === id &&
      last.status === status &&
      last.reason === reason &&
      last.message === message &&
      last.info === info;
    if (!same) last = { id, status, reason, text: run.text, message, info, run };
    return last;
  };
}
