//! What the emitter counts, and how it is written for Prometheus. No label holds an id, a room or an event.

use std::fmt::Write;
use std::time::Duration;

use adapter::metrics::Cell;

use crate::api::problem::Code;

/// The calls that are told apart: a path of the API each, and everything else.
pub(crate) const ROUTES: [&str; 15] = [
    "/v1/emit",
    "/v1/batch",
    "/v1/sockets/join",
    "/v1/sockets/leave",
    "/v1/sockets/disconnect",
    "/v1/sockets/update",
    "/v1/sockets",
    "/v1/rooms",
    "/v1/users",
    "/v1/users/query",
    "/v1/server-emit",
    "/v1/info",
    "/openapi.json",
    "/docs",
    "other",
];

/// Upper bounds of the histogram of durations, in milliseconds.
const BUCKETS_MS: [u64; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 10_000];

/// The statuses that calls end with.
const STATUSES: [u16; 15] = [200, 202, 303, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 503];

/// Why a caller was not let in.
const REFUSALS: [(&str, Code); 3] = [
    ("missing", Code::MissingCredentials),
    ("invalid", Code::InvalidCredentials),
    ("expired", Code::ExpiredCredentials),
];

/// Why a message did not reach the broker, as `LinkError::reason` names it.
const FAILURES: [&str; 5] = ["away", "full", "unknown", "refused", "encode"];

/// The durations of one route's calls.
#[derive(Debug, Default)]
struct Durations {
    buckets: [Cell; BUCKETS_MS.len()],
    count: Cell,
    sum_us: Cell,
}

macro_rules! metrics {
    ($($field:ident: $name:literal $kind:literal $help:literal,)*) => {
        /// The numbers of one emitter.
        #[derive(Debug, Default)]
        pub struct Metrics {
            ended: [[Cell; STATUSES.len()]; ROUTES.len()],
            ended_otherwise: [Cell; ROUTES.len()],
            durations: [Durations; ROUTES.len()],
            callers_refused: [Cell; REFUSALS.len()],
            failures: [Cell; FAILURES.len()],
            $(#[doc = $help] pub(crate) $field: Cell,)*
        }

        impl Metrics {
            fn singles(&self) -> Vec<(&'static str, &'static str, &'static str, &Cell)> {
                vec![$(($name, $kind, $help, &self.$field),)*]
            }
        }
    };
}

metrics! {
    connections: "jackfield_emitter_connections" "gauge" "Open connections of callers",
    connections_opened: "jackfield_emitter_connections_opened_total" "counter" "Connections of callers that were accepted",
    connections_waited: "jackfield_emitter_connections_full_total" "counter" "Times when connections had to wait because emitter.connections_max were open",
    requests: "jackfield_emitter_requests_pending" "gauge" "Requests under way",
    requests_overloaded: "jackfield_emitter_requests_overloaded_total" "counter" "Requests refused because emitter.requests_max were under way",
    bodies_bytes: "jackfield_emitter_bodies_bytes" "gauge" "Bytes set aside for the bodies of requests under way",
    bodies_overloaded: "jackfield_emitter_bodies_overloaded_total" "counter" "Requests refused because emitter.bodies_bytes_max were set aside",
    rate_limited: "jackfield_emitter_rate_limited_total" "counter" "Operations refused because their key made too many",
    emits: "jackfield_emitter_emits_total" "counter" "Events that the broker has taken",
    batch_operations: "jackfield_emitter_batch_operations_total" "counter" "Operations that came in batches",
    acks: "jackfield_emitter_acks_total" "counter" "Acks of clients that were collected",
    acks_left_out: "jackfield_emitter_acks_left_out_total" "counter" "Acks left out of an answer because it had too many or too large ones",
    queries_partial: "jackfield_emitter_queries_partial_total" "counter" "Answers that some node had no part in",
    pages_cut: "jackfield_emitter_pages_cut_total" "counter" "Pages that ended early because of emitter.answer_bytes_max",
    idempotency_keys: "jackfield_emitter_idempotency_keys" "gauge" "Idempotency keys that are remembered",
    idempotency_replayed: "jackfield_emitter_idempotency_replayed_total" "counter" "Calls answered from memory because their key was known",
    idempotency_conflicts: "jackfield_emitter_idempotency_conflicts_total" "counter" "Calls refused because their key was used for another call",
    idempotency_evicted: "jackfield_emitter_idempotency_evicted_total" "counter" "Idempotency keys forgotten early because there were too many",
    keys: "jackfield_emitter_keys" "gauge" "API keys that are accepted",
    keys_reloaded: "jackfield_emitter_keys_reloaded_total" "counter" "Times when changed files of keys and secrets were taken over",
    keys_refused: "jackfield_emitter_keys_refused_total" "counter" "Times when changed files of keys and secrets could not be used",
}

impl Metrics {
    /// Counts a call that ended.
    pub(crate) fn end(&self, route: usize, status: u16, took: Duration) {
        let position = STATUSES.iter().position(|known| *known == status);
        let cell = match position {
            Some(position) => self.ended.get(route).and_then(|statuses| statuses.get(position)),
            None => self.ended_otherwise.get(route),
        };
        if let Some(cell) = cell {
            cell.add(1);
        }
        let Some(durations) = self.durations.get(route) else { return };
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        for (bucket, bound_ms) in durations.buckets.iter().zip(BUCKETS_MS) {
            if us <= bound_ms * 1_000 {
                bucket.add(1);
            }
        }
        durations.count.add(1);
        durations.sum_us.add(us);
    }

    /// Counts a caller that was not let in.
    pub(crate) fn refuse_caller(&self, code: Code) {
        let found = REFUSALS.iter().zip(&self.callers_refused).find(|((_, known), _)| *known == code);
        if let Some((_, cell)) = found {
            cell.add(1);
        }
    }

    /// Counts a message that did not reach the broker.
    pub(crate) fn fail(&self, reason: &str) {
        let found = FAILURES.iter().zip(&self.failures).find(|(known, _)| **known == reason);
        if let Some((_, cell)) = found {
            cell.add(1);
        }
    }

    /// The text that Prometheus reads.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(16 * 1024);
        self.render_calls(&mut out);
        self.render_durations(&mut out);
        let name = "jackfield_emitter_callers_refused_total";
        head(&mut out, name, "counter", "Calls without a key that is good here, by reason");
        for ((reason, _), cell) in REFUSALS.iter().zip(&self.callers_refused) {
            let _ = writeln!(out, "{name}{{reason=\"{reason}\"}} {}", cell.get());
        }
        let name = "jackfield_emitter_publish_failed_total";
        head(&mut out, name, "counter", "Messages that the broker did not take for certain, by reason");
        for (reason, cell) in FAILURES.iter().zip(&self.failures) {
            let _ = writeln!(out, "{name}{{reason=\"{reason}\"}} {}", cell.get());
        }
        for (name, kind, help, cell) in self.singles() {
            head(&mut out, name, kind, help);
            let _ = writeln!(out, "{name} {}", cell.get());
        }
        out
    }

    fn render_calls(&self, out: &mut String) {
        let name = "jackfield_emitter_requests_total";
        head(out, name, "counter", "Requests by path and status");
        for ((route, statuses), otherwise) in ROUTES.iter().zip(&self.ended).zip(&self.ended_otherwise) {
            let named = STATUSES.iter().map(ToString::to_string).zip(statuses);
            for (status, cell) in named.chain([("other".to_owned(), otherwise)]) {
                if cell.get() > 0 {
                    // Writing to a String cannot fail.
                    let _ = writeln!(out, "{name}{{path=\"{route}\",status=\"{status}\"}} {}", cell.get());
                }
            }
        }
    }

    fn render_durations(&self, out: &mut String) {
        let name = "jackfield_emitter_request_seconds";
        head(out, name, "histogram", "Time from the head of a request to the head of its answer");
        for (route, durations) in ROUTES.iter().zip(&self.durations) {
            let count = durations.count.get();
            if count == 0 {
                continue;
            }
            for (bucket, bound_ms) in durations.buckets.iter().zip(BUCKETS_MS) {
                let bound = Duration::from_millis(bound_ms).as_secs_f64();
                let _ = writeln!(out, "{name}_bucket{{path=\"{route}\",le=\"{bound}\"}} {}", bucket.get());
            }
            let _ = writeln!(out, "{name}_bucket{{path=\"{route}\",le=\"+Inf\"}} {count}");
            let seconds = Duration::from_micros(durations.sum_us.get()).as_secs_f64();
            let _ = writeln!(out, "{name}_sum{{path=\"{route}\"}} {seconds}");
            let _ = writeln!(out, "{name}_count{{path=\"{route}\"}} {count}");
        }
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}.\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_path_and_status() {
        let metrics = Metrics::default();
        metrics.end(0, 202, Duration::from_micros(1_500));
        metrics.end(0, 202, Duration::from_secs(20));
        metrics.end(14, 418, Duration::ZERO);
        metrics.fail("unknown");
        metrics.refuse_caller(Code::ExpiredCredentials);
        let text = metrics.render();
        for expected in [
            "jackfield_emitter_requests_total{path=\"/v1/emit\",status=\"202\"} 2\n",
            "jackfield_emitter_requests_total{path=\"other\",status=\"other\"} 1\n",
            "jackfield_emitter_request_seconds_bucket{path=\"/v1/emit\",le=\"0.001\"} 0\n",
            "jackfield_emitter_request_seconds_bucket{path=\"/v1/emit\",le=\"0.002\"} 1\n",
            "jackfield_emitter_request_seconds_bucket{path=\"/v1/emit\",le=\"+Inf\"} 2\n",
            "jackfield_emitter_request_seconds_sum{path=\"/v1/emit\"} 20.0015\n",
            "jackfield_emitter_publish_failed_total{reason=\"unknown\"} 1\n",
            "jackfield_emitter_callers_refused_total{reason=\"expired\"} 1\n",
            "# TYPE jackfield_emitter_keys gauge\njackfield_emitter_keys 0\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
    }

    #[test]
    fn names_are_ours_and_end_as_their_kind() {
        for line in Metrics::default().render().lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            assert!(name.starts_with("jackfield_emitter_"), "{name}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        }
    }
}
