//! Query parameters, read as the fields of a question.

use serde::de::DeserializeOwned;

use crate::api::problem::{Code, Problem};

/// Reads what stands behind `?`. Unknown and repeated parameters are refused.
pub(crate) fn parse<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(pairs).map_err(|error| {
        let (path, message) = (error.path().to_string(), error.inner().to_string());
        let repeated = message.strip_prefix("duplicate field `").and_then(|rest| rest.split('`').next());
        let name = repeated.map(str::to_owned).or(Some(path).filter(|path| path != "."));
        let problem = Problem::new(Code::InvalidQuery, message);
        match name {
            Some(name) => problem.about(name),
            None => problem,
        }
    })
}

/// The number of items that a page is to have.
pub(crate) fn limit(wished: Option<u64>, max: usize) -> Result<usize, Problem> {
    let Some(wished) = wished else { return Ok(max.min(100)) };
    let limit = usize::try_from(wished).unwrap_or(usize::MAX);
    if (1..=max).contains(&limit) {
        return Ok(limit);
    }
    Err(Problem::new(Code::InvalidQuery, format!("a page has 1 to {max} items")).about("limit"))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        room: Option<String>,
        limit: Option<u64>,
    }

    #[test]
    fn parameters_are_decoded() {
        let check = |query: &str, room: Option<&str>, limit: Option<u64>| {
            let expected = Fields { room: room.map(str::to_owned), limit };
            assert_eq!(parse::<Fields>(query).unwrap(), expected, "{query}");
        };
        check("", None, None);
        check("room=a%20b%26&limit=7", Some("a b&"), Some(7));
        check("room=", Some(""), None);
    }

    #[test]
    fn faults_name_the_parameter() {
        let check = |query: &str, parameter: Option<&str>| {
            let problem = parse::<Fields>(query).unwrap_err();
            assert_eq!(
                (problem.code, problem.parameter.as_deref()),
                (Code::InvalidQuery, parameter),
                "{query}"
            );
        };
        check("limit=x", Some("limit"));
        check("limit=-1", Some("limit"));
        check("rooms=x", Some("rooms"));
        check("room=a&room=b", Some("room"));
    }

    #[test]
    fn a_page_has_a_bound() {
        assert_eq!(limit(None, 1_000), Ok(100));
        assert_eq!(limit(None, 10), Ok(10));
        assert_eq!(limit(Some(1_000), 1_000), Ok(1_000));
        assert_eq!(limit(Some(0), 1_000).unwrap_err().code, Code::InvalidQuery);
        assert_eq!(limit(Some(1_001), 1_000).unwrap_err().code, Code::InvalidQuery);
    }
}
