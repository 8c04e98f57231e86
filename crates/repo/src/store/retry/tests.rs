use object_store::client::{HttpError, HttpErrorKind};

use super::*;

fn answered(status: u16, retry_after: Option<u64>) -> StoreError {
    let answer = Answer {
        status,
        retry_after: retry_after.map(Duration::from_secs),
        text: "SlowDown: please".to_owned(),
    };
    StoreError::Generic {
        store: "test",
        source: Box::new(HttpError::new(HttpErrorKind::Unknown, answer)),
    }
}

fn generic() -> StoreError {
    StoreError::Generic {
        store: "test",
        source: io::Error::from(io::ErrorKind::ConnectionReset).into(),
    }
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_are_drawn_and_come_to_an_end() {
    let policy = RetryPolicy::default();
    let mut attempts = Attempts::new(&policy);
    let mut longest = policy.first_pause;
    for _ in 1..policy.attempts {
        let began = Instant::now();
        attempts
            .again(generic())
            .await
            .expect("it may be asked again");
        let pause = began.elapsed();
        // A timer's grain is a millisecond.
        let above = longest + Duration::from_millis(2);
        assert!(
            (longest / 2..=above).contains(&pause),
            "{pause:?} of {longest:?}"
        );
        longest = (longest * 2).min(policy.longest_pause);
    }
    assert!(
        attempts.again(generic()).await.is_err(),
        "the attempts are used up"
    );
}

#[tokio::test(start_paused = true)]
async fn patience_ends_before_the_attempts_do() {
    let policy = RetryPolicy {
        patience: Duration::from_secs(5),
        ..RetryPolicy::default()
    };
    let mut attempts = Attempts::new(&policy);
    let began = Instant::now();
    while attempts.again(generic()).await.is_ok() {}
    assert!(attempts.made < policy.attempts);
    assert!(began.elapsed() <= policy.patience);
}

#[tokio::test(start_paused = true)]
async fn the_store_says_how_long_it_wants_to_rest() {
    let policy = RetryPolicy::default();
    for (wish, least) in [(7, 7), (86_400, LONGEST_WISH.as_secs())] {
        let mut attempts = Attempts::new(&policy);
        let began = Instant::now();
        attempts
            .again(answered(503, Some(wish)))
            .await
            .expect("503 passes");
        let pause = began.elapsed();
        let least = Duration::from_secs(least);
        assert!(
            (least..least + Duration::from_secs(1)).contains(&pause),
            "{pause:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_may_help_is_repeated() {
    let policy = RetryPolicy::default();
    for status in [408, 429, 500, 502, 503, 504] {
        assert!(
            Attempts::new(&policy)
                .again(answered(status, None))
                .await
                .is_ok(),
            "{status}"
        );
    }
    let began = Instant::now();
    for status in [301, 400, 401, 403, 404, 405, 416, 501, 507] {
        let error = Attempts::new(&policy).again(answered(status, None)).await;
        let error = error.expect_err("the same answer would come again");
        assert!(error.to_string().contains("SlowDown: please"), "{error}");
    }
    let denied = StoreError::PermissionDenied {
        path: "x".to_owned(),
        source: "no".into(),
    };
    assert!(Attempts::new(&policy).again(denied).await.is_err());
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_answer_has_its_time_by_its_size() {
    let policy = RetryPolicy::default();
    for (bytes, seconds) in [(0, 30), (policy.slowest_rate * 100, 130)] {
        let began = Instant::now();
        let answer = policy
            .within(bytes, std::future::pending::<StoreResult<()>>())
            .await;
        let error = answer.expect_err("it never comes");
        assert!(may_help(&error).is_some());
        assert_eq!(began.elapsed().as_secs(), seconds);
    }
}
