//! The messages of `@socket.io/redis-adapter` 8, `@socket.io/redis-emitter` 5 and `socket.io-emitter` 3.
//!
//! | Module | What it holds |
//! |---|---|
//! | [`broadcast`] | the array `[uid, packet, options]` on namespace and room channels |
//! | [`request`] | the maps on request channels, types 0 to 7, and our own |
//! | [`response`] | the maps on response channels |
//! | `fields` | the reader that the maps have in common |
//!
//! A message that begins with `{` is JSON, any other MessagePack, as written by notepack 2 and 3: dates and `undefined`
//! become what `JSON.stringify` would make of them. What we add travels where Node ignores it:
//!
//! | Where | What | Meaning |
//! |---|---|---|
//! | broadcast | a fourth element, a map with `id` and `tp` | deduplication, trace parent |
//! | request | `id`, `tp` | the same |
//! | request type 2, 3, 4 | `requestId` | every node of ours answers when it is done |
//! | request type 5 | `pageSize` | our nodes may answer in pages of so many sockets |
//! | request type `"update"` | `user`, `data`, `expiresAt` | changes what is known of sockets |
//! | any response | `node` | which node of ours answers |
//! | response to type 2, 3, 4 | `count` | how many sockets it concerned |
//! | response to type 5 | `more`; `user` of each socket | another page follows; whose socket it is |
//! | response type 8 | `sids` | who was asked |
//! | response type 9 | `sid`; `args` if there are several | who answered; all arguments |

pub mod broadcast;
mod fields;
pub mod request;
pub mod response;
