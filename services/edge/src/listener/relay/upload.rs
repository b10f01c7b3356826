//! The body of a POST on its way to another node: passed on as it comes, never kept as a whole.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Pieces that wait for the connection to the owner. While one does, the client is not read.
const PIECES_MAX: usize = 1;

/// The client broke off, so the body must not look complete to the owner.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the client broke off")]
pub(super) struct BrokenOff;

#[derive(Debug)]
enum Piece {
    Data(Bytes),
    End,
}

/// The body of a request to another node.
#[derive(Debug, Default)]
pub(super) struct RelayBody {
    /// `None` for a request without a body, or at the end of one.
    pieces: Option<mpsc::Receiver<Piece>>,
    length: Option<u64>,
    /// That it was broken off is said at the second look.
    is_broken: bool,
}

/// Reads a client's body into a [`RelayBody`].
#[derive(Debug)]
pub(super) struct Upload {
    from: Incoming,
    to: mpsc::Sender<Piece>,
}

/// The two ends of a body that is passed on.
pub(super) fn upload(from: Incoming) -> (Upload, RelayBody) {
    let (to, pieces) = mpsc::channel(PIECES_MAX);
    let length = from.size_hint().exact();
    (Upload { from, to }, RelayBody { pieces: Some(pieces), length, is_broken: false })
}

impl Upload {
    /// Passes on what comes within `within`. Of a body over `bytes_max` one byte more than that is passed on, so that
    /// the owner says what it says to any such body.
    pub(super) async fn run(self, bytes_max: usize, within: Duration) {
        // What ends early hangs up, and the owner learns of a body that was broken off.
        let _ = timeout(within, self.pass_on(bytes_max)).await;
    }

    async fn pass_on(mut self, bytes_max: usize) -> Option<()> {
        let mut left = bytes_max.saturating_add(1);
        while let Some(frame) = self.from.frame().await {
            let Ok(mut data) = frame.ok()?.into_data() else { continue };
            data.truncate(left);
            left -= data.len();
            self.to.send(Piece::Data(data)).await.ok()?;
            if left == 0 {
                break;
            }
        }
        self.to.send(Piece::End).await.ok()
    }
}

impl Body for RelayBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let Some(pieces) = &mut self.pieces else { return Poll::Ready(None) };
        let piece = ready!(pieces.poll_recv(context));
        if let Some(Piece::Data(data)) = piece {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        // The connection gives up at once, and would keep a head that it has not written: the owner must see the request, or
        // it would not see its end.
        if piece.is_none() && !std::mem::replace(&mut self.is_broken, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.pieces = None;
        Poll::Ready(if piece.is_some() { None } else { Some(Err(BrokenOff)) })
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.pieces, self.length) {
            (None, _) => SizeHint::with_exact(0),
            (Some(_), Some(length)) => SizeHint::with_exact(length),
            (Some(_), None) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> (mpsc::Sender<Piece>, RelayBody) {
        let (to, pieces) = mpsc::channel(8);
        (to, RelayBody { pieces: Some(pieces), ..RelayBody::default() })
    }

    #[tokio::test]
    async fn a_body_is_complete_only_when_it_was_said_to_be() {
        let (to, body) = body();
        for piece in [Piece::Data("ab".into()), Piece::Data("c".into()), Piece::End] {
            to.send(piece).await.unwrap();
        }
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
    }

    #[tokio::test]
    async fn a_body_that_was_broken_off_fails() {
        let (to, body) = body();
        to.send(Piece::Data("ab".into())).await.unwrap();
        drop(to);
        assert!(body.collect().await.is_err());
    }

    /// A connection that is told at its first look would not even write the head.
    #[test]
    fn that_a_body_was_broken_off_is_told_at_the_second_look() {
        let (to, body) = body();
        drop(to);
        let mut body = std::pin::pin!(body);
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(body.as_mut().poll_frame(&mut context).is_pending());
        assert!(matches!(body.as_mut().poll_frame(&mut context), Poll::Ready(Some(Err(BrokenOff)))));
    }

    #[tokio::test]
    async fn a_request_without_a_body_has_none() {
        let body = RelayBody::default();
        assert!(body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(0));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "");
    }
}
