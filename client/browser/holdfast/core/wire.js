/**
 * The wire's messages as types: plain JSON objects, the same for every client. No code.
 *
 * Later servers may send more: unknown fields, event types and part kinds. The unions here name what this version
 * knows; whoever switches over them lets the rest pass.
 */

/**
 * @typedef {"queued" | "running" | "waiting" | "ended"} RunStatus
 * @typedef {keyof typeof import("./endings.js").STATUS_OF_REASON} EndReason
 * @typedef {"user" | "superseded" | "abandoned" | "shutdown" | "prevented" | "unknown_agent" | "deadline"} Cause
 * @typedef {"streaming" | "complete" | "interrupted" | "error"} MessageStatus
 * @typedef {"approval" | "input" | "tool"} RequestKind
 * @typedef {"answered" | "expired" | "withdrawn"} RequestOutcome
 * @typedef {"queue" | "interrupt" | "alongside" | "reject" | "steer"} WhenBusy
 * @typedef {"ignore" | "prevent"} IfUnknown
 * @typedef {"now" | "step"} Boundary
 * @typedef {"return" | "send"} IfEnded
 * @typedef {"snapshot" | "tail" | "reset"} Resume
 *
 * What commands come to: the `outcome` of an ack.
 * @typedef {"started" | "queued" | "steered" | "ended"} OutcomeOfSend
 * @typedef {"cancelled" | "already_ended" | "unknown_run" | "withdrawn" | "steered"} OutcomeOfCancel
 * @typedef {"accepted" | "already_ended" | "unknown_run" | "sent"} OutcomeOfSteer
 * @typedef {"withdrawn" | "already_applied" | "already_ended" | "unknown_steer"} OutcomeOfWithdraw
 * @typedef {"accepted" | "already_answered" | "expired" | "already_ended" | "unknown_request"} OutcomeOfAnswer
 */

/**
 * A place in a session's log. Seqs of different epochs are not comparable.
 * @typedef {{epoch: string, seq: number}} Position
 *
 * A position and the time of the event there: what a hello resumes from.
 * @typedef {{epoch: string, seq: number, at?: number}} Cursor
 */

/**
 * One part of a message. A server of a later version may send other kinds, which are kept as they are: a `switch` over
 * `kind` has a `default`.
 * @typedef {{kind: "text" | "reasoning", text: string}} TextPart
 *
 * @typedef {object} ToolCallPart
 * @property {"tool_call"} kind
 * @property {string} callId
 * @property {string} name
 * @property {string} [arguments] as they are streamed, until `input` comes
 * @property {unknown} [input]
 *
 * @typedef {{kind: "tool_result", callId: string, output?: unknown, error?: string}} ToolResultPart
 * @typedef {{kind: "data", name: string, value: unknown}} DataPart
 *
 * @typedef {object} FilePart
 * @property {"file" | "source"} kind
 * @property {string} url
 * @property {string} [mediaType]
 * @property {string} [title]
 * @property {string} [name]
 *
 * A steer, where it was applied.
 * @typedef {{kind: "steer", steerId: string, parts: Part[], by: string, device: string}} SteerPart
 *
 * @typedef {TextPart | ToolCallPart | ToolResultPart | DataPart | FilePart | SteerPart} Part
 */

/**
 * A part as it travels: whatever a server may send.
 * @typedef {{kind: string, [field: string]: unknown}} AnyPart
 *
 * How much of one text or reasoning part is kept, in Unicode code points.
 * @typedef {{part: number, length: number}} Kept
 *
 * A steer that its run never took, handed back with the run's end.
 * @typedef {{steerId: string, parts: Part[]}} ReturnedSteer
 *
 * Why a run failed, in words that are safe to show.
 * @typedef {{code: string, message: string}} Failure
 */

/**
 * Something a run asks a person or a client for, with the fields of its kind.
 * @typedef {object} Request
 * @property {string} id
 * @property {RequestKind} kind
 * @property {number} [expiresAt]
 * @property {string} [callId]
 * @property {string} [name]
 * @property {unknown} [input]
 * @property {string} [prompt]
 * @property {unknown} [schema]
 * @property {string} [device]
 */

/**
 * One message of the transcript.
 * @typedef {object} Message
 * @property {string} id
 * @property {"user" | "assistant"} role
 * @property {Part[]} parts
 * @property {number} at
 * @property {number} seq of its `message` event, or of its run's first `run.started`
 * @property {string | null} after
 * @property {MessageStatus} status
 * @property {string} [by]
 * @property {string} [device]
 * @property {string} [runId]
 * @property {EndReason} [reason]
 * @property {Record<string, unknown>} [metadata]
 * @property {boolean} [continued] an entry that goes on with the one before it; never in a view
 */

/**
 * The message inside a `message` or a `run.queued` event.
 * @typedef {object} UserMessage
 * @property {string} id
 * @property {"user"} role
 * @property {Part[]} parts
 * @property {string} by
 * @property {string} device
 * @property {number} at
 * @property {Record<string, unknown>} [metadata]
 */

/**
 * A steer accepted for a run and not applied yet.
 * @typedef {object} PendingSteer
 * @property {string} steerId
 * @property {Part[]} parts
 * @property {Boundary} boundary
 * @property {IfEnded} ifEnded
 * @property {string} by
 * @property {string} device
 * @property {Position} [seen]
 */

/**
 * A run. Of one that has ended it says what its `run.ended` said; `by` and `device` are the sender's.
 * @typedef {object} RunInfo
 * @property {string} runId
 * @property {RunStatus} status
 * @property {string} by
 * @property {string} device
 * @property {Request[]} requests
 * @property {PendingSteer[]} steers
 * @property {string} [agent]
 * @property {string} [messageId]
 * @property {UserMessage} [message] while it is queued
 * @property {number} [startedSeq]
 * @property {EndReason} [reason]
 * @property {string} [cause]
 * @property {Failure} [error]
 * @property {Record<string, unknown>} [usage]
 * @property {ReturnedSteer[]} [returned] where steers came back
 */

/**
 * @typedef {{seq: number, at: number, command?: string, from?: number}} EventFields
 * `from`: the event stands for all from that seq to its own.
 *
 * @typedef {{type: "message", message: UserMessage, runId: string, after: string | null} & EventFields} MessageEvent
 * @typedef {{type: "run.queued", runId: string, agent: string, by: string, device: string, message: UserMessage,
 *   position: number} & EventFields} RunQueued
 * @typedef {{type: "run.started", runId: string, agent: string, by: string, device: string, messageId: string,
 *   after: string, attempt: number, node: string} & EventFields} RunStarted
 * @typedef {{type: "run.chunk", runId: string, part: number, kind: string, delta?: unknown, done?: boolean,
 *   [field: string]: unknown} & EventFields} RunChunk
 * @typedef {{type: "run.requested", runId: string, request: Request} & EventFields} RunRequested
 * @typedef {{type: "run.resolved", runId: string, requestId: string, outcome: RequestOutcome,
 *   value?: unknown, by?: string, device?: string} & EventFields} RunResolved
 * @typedef {{type: "steer.accepted", runId: string} & PendingSteer & EventFields} SteerAccepted
 * @typedef {{type: "steer.applied", runId: string, steerId: string, seen?: Position, kept?: Kept[]} & EventFields
 *   } SteerApplied
 * @typedef {{type: "steer.withdrawn", runId: string, steerId: string} & EventFields} SteerWithdrawn
 * @typedef {{type: "run.ended", runId: string, reason: EndReason, returned: ReturnedSteer[], cause?: string,
 *   by?: string, device?: string, seen?: Position, kept?: Kept[], error?: Failure, usage?: Record<string, unknown>
 *   } & EventFields} RunEnded
 * @typedef {{type: "run.settled", runId: string, stoppedAfterMs: number, confirmed: boolean,
 *   usage?: Record<string, unknown>} & EventFields} RunSettled
 *
 * @typedef {MessageEvent | RunQueued | RunStarted | RunChunk | RunRequested | RunResolved | SteerAccepted
 *   | SteerApplied | SteerWithdrawn | RunEnded | RunSettled} Event
 */

/**
 * The server's bounds, in bytes and counts.
 * @typedef {{frameBytes: number, eventBytes: number, messageBytes: number, commandItems: number,
 *   commandValues: number}} Limits
 *
 * The reply to `hello`. `head` is the store's, read for this hello.
 * @typedef {object} Welcome
 * @property {"welcome"} type
 * @property {string} session
 * @property {string} connection
 * @property {string} principal
 * @property {string} device
 * @property {number} at
 * @property {string} epoch
 * @property {number} head
 * @property {Resume} resume
 * @property {number} heartbeatMs
 * @property {string[]} features
 * @property {Limits} limits
 * @property {number} [expiresAt]
 *
 * The session at `seq`; several of them may make one, the one with `last` ends it.
 * @typedef {object} Snapshot
 * @property {"snapshot"} type
 * @property {string} epoch
 * @property {number} seq
 * @property {number} at
 * @property {boolean} reset
 * @property {Message[]} messages
 * @property {RunInfo[]} runs
 * @property {boolean} more
 * @property {boolean} last
 *
 * Older messages, ascending, in reply to `history`.
 * @typedef {{type: "page", id: string, messages: Message[], more: boolean, last: boolean}} Page
 *
 * Everything up to the head at the time of `hello` has been sent.
 * @typedef {{type: "caughtUp", seq: number, at: number}} CaughtUp
 *
 * The outcome of a command. `seq` is the last event it added, or the one it speaks of.
 * @typedef {object} Ack
 * @property {"ack"} type
 * @property {string} id
 * @property {string} outcome
 * @property {string} [runId]
 * @property {string[]} [runIds]
 * @property {number} [seq]
 * @property {number} [position]
 * @property {EndReason} [reason]
 * @property {string} [cause]
 * @property {true} [duplicate]
 * @property {number} [expiresAt]
 * @property {number} [head]
 *
 * A command refused, or a frame that is none (then without `id`).
 * @typedef {object} ErrorMessage
 * @property {"error"} type
 * @property {string} code
 * @property {string} message
 * @property {boolean} retryable
 * @property {string} [id]
 * @property {string} [path]
 * @property {number} [retryAfterMs]
 *
 * A sign of life with the seq that this connection has been sent up to.
 * @typedef {{type: "ping", head: number}} Heartbeat
 *
 * The connection closes soon.
 * @typedef {{type: "goaway", reason: string, reconnectAfterMs: number}} Goaway
 *
 * One connection that watches the session.
 * @typedef {{connection: string, device: string, principal: string, since: number}} PresentDevice
 *
 * Who watches: at most 50 of the `total` connections.
 * @typedef {{type: "presence", devices: PresentDevice[], total: number}} Presence
 */

/**
 * What a client asks; `type` names which, and the other fields are that type's.
 * @typedef {{type: string, id: string, [field: string]: unknown}} Command
 */

export {};
