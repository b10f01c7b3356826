//! Events between the applications of the nodes.

use edge::upstream::Args;
use system_tests::waiting::{soon, until};

use crate::nodes::{Node, Nodes, path};

fn heard(node: &Node, event: &str) -> Vec<String> {
    let lines = node.strings.heard_of("server event ");
    lines.into_iter().filter(|line| line.contains(event)).collect()
}

/// Also where an application runs on several shards.
pub(super) async fn events_reach_each_other_node_once(nodes: &Nodes) {
    for namespace in ["/", "/a"] {
        let _few = nodes.few(namespace).await;
        for sender in &nodes.0 {
            let event = format!("hello {namespace} from {}", sender.id());
            let end = format!("end {namespace} from {}", sender.id());
            for text in [&event, &end] {
                let args = Args::text(format!(r#"["{text}",{{"a":1}}]"#));
                sender.cluster.server_emit(&path(namespace), args).expect("a valid event");
            }
            for other in nodes.0.iter().filter(|other| other.id() != sender.id()) {
                until(&end, || !heard(other, &end).is_empty()).await;
                assert_eq!(
                    heard(other, &event),
                    [format!(r#"server event {namespace} ["{event}",{{"a":1}}]"#)]
                );
            }
            assert_eq!(heard(sender, &event), [""; 0], "its own application knows");
        }
    }
}

pub(super) async fn answers(nodes: &Nodes) {
    let _few = nodes.few("/").await;
    let (root, others) = (path("/"), nodes.0.len() - 1);
    for sender in &nodes.0 {
        let ask = async |event: &str| {
            let text = format!(r#"["{event}",2]"#);
            let asked = sender.cluster.server_emit_with_ack(&root, Args::text(text.clone()));
            let answers = soon("the answers", asked).await.expect("a valid event");
            assert!(answers.missing.is_nobody(), "{answers:?}");
            (answers.answers, text)
        };
        let (answers, text) = ask("question").await;
        assert_eq!(answers, vec![text; others]);
        // Who has nothing to say says so, and is not missing.
        assert_eq!(ask("silent").await.0, [""; 0]);
        nodes.0.iter().for_each(|node| node.strings.open("slow"));
        let (answers, text) = ask("slow").await;
        assert_eq!(answers, vec![text; others]);
    }
}
