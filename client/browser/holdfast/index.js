/** Holdfast's browser client: `connect` opens a session; `holdfast/react` has hooks for it. */

export { indexedDBStorage } from "./browser/indexeddb.js";
export { connect } from "./connect.js";
export {
  ClientClosedError,
  CommandError,
  ConnectionClosedError,
  HoldfastError,
  OutboxFullError,
  UnknownRunError,
} from "./core/errors.js";

/**
 * The faces.
 *
 * @typedef {import("./session.js").Session} Session
 * @typedef {import("./run.js").Run} Run
 * @typedef {import("./run.js").RunResult} RunResult
 * @typedef {import("./connect.js").Options} Options
 * @typedef {import("./browser/link.js").Token} Token
 * @typedef {import("./browser/storage.js").KeyValueStorage} KeyValueStorage
 * @typedef {import("./core/view.js").View} View
 * @typedef {import("./core/phases.js").Status} Status
 * @typedef {import("./client.js").Change} Change
 * @typedef {import("./client.js").Listener} Listener
 * @typedef {import("./core/outbox.js").Settled} Settled
 * @typedef {import("./core/outbox.js").HistoryPage} HistoryPage
 * @typedef {import("./feed.js").FeedItem} FeedItem
 * @typedef {import("./feed.js").Lagged} Lagged
 * @typedef {import("./core/transcript.js").Reset} Reset
 */

/**
 * What is asked, and what it comes to.
 *
 * @typedef {import("./core/commands.js").SendOptions} SendOptions
 * @typedef {import("./core/commands.js").CancelOptions} CancelOptions
 * @typedef {import("./core/commands.js").CancelAllOptions} CancelAllOptions
 * @typedef {import("./core/commands.js").SteerOptions} SteerOptions
 * @typedef {import("./core/commands.js").HistoryOptions} HistoryOptions
 * @typedef {import("./session.js").CancelOutcome} CancelOutcome
 * @typedef {import("./session.js").CancelAllOutcome} CancelAllOutcome
 * @typedef {import("./session.js").SteerOutcome} SteerOutcome
 * @typedef {import("./session.js").WithdrawOutcome} WithdrawOutcome
 * @typedef {import("./session.js").AnswerOutcome} AnswerOutcome
 * @typedef {import("./session.js").OutcomeFields} OutcomeFields
 * @typedef {import("./core/wire.js").OutcomeOfCancel} OutcomeOfCancel
 * @typedef {import("./core/wire.js").OutcomeOfSteer} OutcomeOfSteer
 * @typedef {import("./core/wire.js").OutcomeOfWithdraw} OutcomeOfWithdraw
 * @typedef {import("./core/wire.js").OutcomeOfAnswer} OutcomeOfAnswer
 * @typedef {import("./core/wire.js").WhenBusy} WhenBusy
 * @typedef {import("./core/wire.js").IfUnknown} IfUnknown
 * @typedef {import("./core/wire.js").Boundary} Boundary
 * @typedef {import("./core/wire.js").IfEnded} IfEnded
 * @typedef {import("./core/wire.js").Command} Command
 * @typedef {import("./core/wire.js").Ack} Ack
 */

/**
 * What there is.
 *
 * @typedef {import("./core/wire.js").Position} Position
 * @typedef {import("./core/wire.js").Message} Message
 * @typedef {import("./core/wire.js").UserMessage} UserMessage
 * @typedef {import("./core/wire.js").MessageStatus} MessageStatus
 * @typedef {import("./core/wire.js").Part} Part
 * @typedef {import("./core/wire.js").TextPart} TextPart
 * @typedef {import("./core/wire.js").ToolCallPart} ToolCallPart
 * @typedef {import("./core/wire.js").ToolResultPart} ToolResultPart
 * @typedef {import("./core/wire.js").DataPart} DataPart
 * @typedef {import("./core/wire.js").FilePart} FilePart
 * @typedef {import("./core/wire.js").SteerPart} SteerPart
 * @typedef {import("./core/wire.js").RunInfo} RunInfo
 * @typedef {import("./core/wire.js").RunStatus} RunStatus
 * @typedef {import("./core/wire.js").EndReason} EndReason
 * @typedef {import("./core/wire.js").Failure} Failure
 * @typedef {import("./core/wire.js").Request} Request
 * @typedef {import("./core/wire.js").RequestKind} RequestKind
 * @typedef {import("./core/wire.js").RequestOutcome} RequestOutcome
 * @typedef {import("./core/wire.js").PendingSteer} PendingSteer
 * @typedef {import("./core/wire.js").ReturnedSteer} ReturnedSteer
 * @typedef {import("./core/wire.js").Kept} Kept
 * @typedef {import("./core/wire.js").Presence} Presence
 * @typedef {import("./core/wire.js").PresentDevice} PresentDevice
 */

/**
 * What happens.
 *
 * @typedef {import("./core/wire.js").Event} Event
 * @typedef {import("./core/wire.js").EventFields} EventFields
 * @typedef {import("./core/wire.js").MessageEvent} MessageEvent
 * @typedef {import("./core/wire.js").RunQueued} RunQueued
 * @typedef {import("./core/wire.js").RunStarted} RunStarted
 * @typedef {import("./core/wire.js").RunChunk} RunChunk
 * @typedef {import("./core/wire.js").RunRequested} RunRequested
 * @typedef {import("./core/wire.js").RunResolved} RunResolved
 * @typedef {import("./core/wire.js").SteerAccepted} SteerAccepted
 * @typedef {import("./core/wire.js").SteerApplied} SteerApplied
 * @typedef {import("./core/wire.js").SteerWithdrawn} SteerWithdrawn
 * @typedef {import("./core/wire.js").RunEnded} RunEnded
 * @typedef {import("./core/wire.js").RunSettled} RunSettled
 */
