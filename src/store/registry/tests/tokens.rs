//! Registries that want a token, and what they may say about where it is given.

use super::*;

/// Wants a token, in these headers, whatever comes.
fn wanting(headers: &'static [&'static str], token: fn() -> Reply) -> Scripted {
    Scripted::start(move |asked, _| {
        let host = asked.header("host").unwrap();
        if asked.path.starts_with("/token") {
            return token();
        }
        let headers: Vec<String> = headers.iter().map(|h| h.replace("HOST", host)).collect();
        let headers: Vec<_> = headers
            .iter()
            .map(|h| ("WWW-Authenticate", h.as_str()))
            .collect();
        reply(401, &headers, b"who are you?")
    })
}

fn given() -> Reply {
    reply(200, &[], b"{\"token\":\"abc\"}")
}

#[tokio::test]
async fn a_token_is_fetched_once_and_stays_with_its_host() {
    let storage = Scripted::start(|asked, _| blob_reply(asked, true));
    let elsewhere = format!(
        "http://{}",
        storage.address.replace("127.0.0.1", "localhost")
    );
    let server = Scripted::start(move |asked, _| {
        let host = asked.header("host").unwrap().to_owned();
        if asked.path.starts_with("/token") {
            return reply(200, &[], b"{\"token\":\"abc\"}");
        }
        if asked.header("authorization") != Some("Bearer abc") {
            let realm = format!("Bearer realm=\"http://{host}/token\",service=\"s\",scope=\"a b\"");
            return reply(401, &[("WWW-Authenticate", &realm)], b"");
        }
        match asked.path.contains("/manifests/") {
            true => reply(200, &[], &manifest_of(&blob())),
            false => {
                let location = format!("{elsewhere}{}", asked.path);
                reply(307, &[("Location", &location)], b"")
            }
        }
    });
    let (folder, registry) = registry();
    pull(&registry, &name_of(&server)).await.1.unwrap();
    check_whole(folder.path(), &registry, &name_of(&server));
    let tokens = server.asked();
    let tokens: Vec<_> = tokens
        .iter()
        .filter(|a| a.path.starts_with("/token"))
        .collect();
    assert_eq!(tokens.len(), 1);
    for key in ["nonce=", "scope=a", "scope=b", "service=s", "ts="] {
        assert!(tokens[0].path.contains(key), "{}", tokens[0].path);
    }
    assert!(storage.asked().len() >= 2);
    let leaked = storage.asked();
    assert!(leaked.iter().all(|a| a.header("authorization").is_none()));
}

#[tokio::test]
async fn a_realm_elsewhere_gets_nothing() {
    let thief = Scripted::start(|_, _| reply(200, &[], b"{\"token\":\"abc\"}"));
    let realm = format!("Bearer realm=\"http://{}/token\"", thief.address);
    let server = Scripted::start(move |_, _| reply(401, &[("WWW-Authenticate", &realm)], b""));
    let (_folder, registry) = registry();
    let error = pull(&registry, &name_of(&server)).await.1.unwrap_err();
    assert!(
        error.to_string().contains("does not match original host"),
        "{error}"
    );
    assert!(thief.asked().is_empty());
}

#[tokio::test]
async fn a_realm_that_is_not_the_registrys_is_never_asked() {
    const BAD: &[&str] = &[
        "Bearer realm=\"http://127.0.0.1:9/token\"",
        "Bearer realm=\"http://evil@HOST/token\"",
        "Bearer realm=\"http://u:p@HOST/token\"",
        "Bearer realm=\"file:///etc/passwd\"",
        "Bearer realm=\"//HOST/token\"",
        "Bearer realm=\"\"",
        "Bearer realm=http://HOST/token",
        "Bearer realm=\"http://HOST.evil.example/token\"",
        "Bearer realm=\"gopher://HOST/token\"",
        "Bearer service=\"x\"",
    ];
    for n in 0..BAD.len() {
        let server = wanting(&BAD[n..=n], given);
        let (_folder, registry) = registry();
        let error = refusal(&registry, &server).await;
        assert!(error.contains("realm host"), "{}: {error}", BAD[n]);
        assert!(error.contains("does not match original host"), "{error}");
        assert_eq!(server.asked().len(), 1, "{}", BAD[n]);
    }
}

#[tokio::test]
async fn passwords_are_not_tried() {
    for headers in [&[][..], &["Basic realm=\"x\""], &["Negotiate"]] {
        let server = wanting(headers, given);
        let (_folder, registry) = registry();
        let error = refusal(&registry, &server).await;
        assert!(error.contains("the registry wants a password"), "{error}");
    }
}

#[tokio::test]
async fn the_bearer_is_found_among_challenges() {
    const HEADERS: &[&str] = &["Basic realm=\"x\"", "bearer realm=\"http://HOST/token\""];
    let server = wanting(HEADERS, given);
    let (_folder, registry) = registry();
    // A token that does not help is asked for once.
    let error = refusal(&registry, &server).await;
    assert_eq!(error, "pull model manifest: 401: who are you?");
    let paths: Vec<_> = server.asked().into_iter().map(|a| a.path).collect();
    assert_eq!(paths.len(), 3, "{paths:?}");
    assert!(paths[1].starts_with("/token?"), "{paths:?}");
}

#[tokio::test]
async fn tokens_that_are_none_are_refused() {
    type Token = fn() -> Reply;
    let cases: [(Token, &str); 8] = [
        (|| reply(401, &[], b"no"), "401: no"),
        (|| reply(500, &[], b"broken"), "500: broken"),
        // To another host, where a signature would go with it.
        (
            || reply(307, &[("Location", "http://127.0.0.1:9/token")], b""),
            "307: ",
        ),
        (|| reply(200, &[], b"not json"), "is no JSON"),
        (|| reply(200, &[], b""), "is no JSON"),
        (|| reply(200, &[], b"{\"token\":\"\"}"), "is no token"),
        (
            || reply(200, &[], b"{\"token\":\"a\\r\\nX: y\"}"),
            "is no token",
        ),
        (
            || reply(200, &[], &vec![b' '; 1 << 20]),
            "is longer than 65536 bytes",
        ),
    ];
    for (token, wanted) in cases {
        let server = wanting(&["Bearer realm=\"http://HOST/token\""], token);
        let (folder, registry) = registry();
        let error = refusal(&registry, &server).await;
        assert!(error.contains(wanted), "{error}");
        assert_eq!(server.asked().len(), 2);
        check_nothing(folder.path(), &registry, &server);
    }
}

/// A registry that the internet reaches does not lead into this network, by any way to write an address.
#[tokio::test]
async fn redirects_from_outside_do_not_lead_inside() {
    let inside = Scripted::start(|_, _| reply(200, &[], b"{}"));
    let (_folder, registry) = registry();
    let name = ModelName::parse("r.example/ns/m").unwrap();
    let session = Session::new(&registry, &name, true).unwrap();
    session.assume_public();
    let from = session.url("manifests/latest");
    let port = inside.address.rsplit_once(':').unwrap().1;
    for host in [
        "127.0.0.1",
        "[::1]",
        "2130706433",
        "0x7f.1",
        "[::ffff:127.0.0.1]",
        "10.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "[fe80::1]",
        "0.0.0.0",
    ] {
        let error = session
            .resolve(&from, &format!("http://{host}:{port}/x"))
            .unwrap_err();
        assert!(
            error.to_string().contains("private network"),
            "{host}: {error}"
        );
    }
    // A name says where it leads only when it is resolved.
    let url = session
        .resolve(&from, &format!("http://localhost:{port}/x"))
        .unwrap();
    let error = session
        .get(Method::GET, url, |request| request)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("private network"), "{error}");
    assert!(inside.asked().is_empty(), "nothing was sent");
    for (location, wanted) in [
        ("ftp://r.example/x", "neither http nor https"),
        ("http://[", "no address"),
    ] {
        let error = session.resolve(&from, location).unwrap_err();
        assert!(error.to_string().contains(wanted), "{location}: {error}");
    }
    let secure = Session::new(&registry, &name, false).unwrap();
    let from = secure.url("manifests/latest");
    let error = secure.resolve(&from, "http://r.example/x").unwrap_err();
    assert!(error.to_string().contains("from https to http"), "{error}");
}

/// What a server does that others reach and that knows no callers.
#[tokio::test]
async fn a_closed_network_is_not_asked() {
    let server = Scripted::start(|asked, _| match asked.path.contains("/manifests/") {
        true => reply(200, &[], &manifest_of(&blob())),
        false => blob_reply(asked, true),
    });
    let port = server.address.rsplit_once(':').unwrap().1;
    let (_folder, closed) = registry();
    closed.close_network(vec!["10.0.0.5:5000".into()]);
    for host in [
        "127.0.0.1",
        "localhost",
        "hub.LOCALHOST",
        "2130706433",
        "0x7f.1",
        "169.254.169.254",
        "10.0.0.5",
    ] {
        let name = ModelName::parse(&format!("{host}:{port}/library/m")).unwrap();
        let (statuses, result) = pull(&closed, &name).await;
        assert!(
            matches!(result, Err(Error::Private(_))),
            "{host}: {result:?}"
        );
        assert!(statuses.is_empty(), "{host}: {statuses:?}");
        let pushed = closed.push(&name, true, &mpsc::channel(16).0).await;
        assert!(
            matches!(pushed, Err(Error::Private(_))),
            "{host}: {pushed:?}"
        );
    }
    assert!(server.asked().is_empty());
    let (folder, registry) = registry();
    registry.close_network(vec![server.address.clone()]);
    registry.call_itself("ollama/9.9.9 (test)".into());
    pull(&registry, &name_of(&server)).await.1.unwrap();
    check_whole(folder.path(), &registry, &name_of(&server));
    let agents = server.asked();
    let agents = agents.iter().map(|asked| asked.header("user-agent"));
    assert!(
        agents
            .into_iter()
            .all(|agent| agent == Some("ollama/9.9.9 (test)"))
    );
}
