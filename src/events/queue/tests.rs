use super::super::notice::tests::{notice, notice_to};
use super::namespaces::MAX_SENDING;
use super::state::MAX_WAITING;
use super::*;
use crate::events::{Aspect, EventKind};

fn start() -> Instant {
    Instant::now()
}

fn warning(note: &str) -> Notice {
    notice(EventKind::Warning, note)
}

fn to(namespace: &str, pod: &str) -> Notice {
    notice_to(namespace, pod, EventKind::Warning, "bad")
}

fn take(state: &mut QueueState, now: Instant) -> Option<QueuedNotice> {
    match state.next(now) {
        Next::Notice(queued) => Some(*queued),
        _ => None,
    }
}

/// Takes and sends all there is; returns the names of their objects.
fn drain(state: &mut QueueState, now: Instant) -> Vec<String> {
    let mut names = Vec::new();
    while let Some(QueuedNotice { notice, .. }) = take(state, now) {
        state.finish(&notice, true, now);
        names.push(notice.regarding.name.unwrap());
    }
    names
}

#[test]
fn namespaces_are_served_round_robin() {
    let (mut state, now) = (QueueState::default(), start());
    for pod in ["a1", "a2", "a3"] {
        state.offer(to("a", pod), now);
    }
    for (namespace, pod) in [("b", "b1"), ("c", "c1"), ("b", "b2")] {
        state.offer(to(namespace, pod), now);
    }
    let order = drain(&mut state, now);
    assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3"]);
    assert!(state.namespaces.is_empty() && state.waiting.is_empty());
}

#[test]
fn the_subject_without_an_event_for_the_longest_comes_first() {
    let (mut state, start) = (QueueState::default(), start());
    let mut names = Vec::new();
    for second in 0..3 {
        let now = start + Duration::from_secs(second);
        for pod in ["a", "b", "c", "d"] {
            state.offer(
                notice_to("ns", pod, EventKind::Warning, &second.to_string()),
                now,
            );
        }
        // There is time for two only, and then news that makes the others moot.
        for _ in 0..2 {
            let sent = take(&mut state, now).unwrap();
            state.finish(&sent.notice, true, now);
            names.push(sent.notice.regarding.name.unwrap());
        }
        for pod in ["a", "b", "c", "d"] {
            let key = notice_to("ns", pod, EventKind::Warning, "").dedup_key();
            state.remove(key);
        }
    }
    assert_eq!(names, ["a", "b", "c", "d", "a", "b"]);
}

#[test]
fn a_namespace_in_which_requests_hang_does_not_take_all_places() {
    let (mut state, now) = (QueueState::default(), start());
    for pod in ["a1", "a2", "a3", "a4"] {
        state.offer(to("a", pod), now);
    }
    let hanging: Vec<_> = std::iter::from_fn(|| take(&mut state, now)).collect();
    assert_eq!(hanging.len(), MAX_SENDING);
    state.offer(to("b", "b1"), now);
    assert_eq!(drain(&mut state, now), ["b1"]);
    state.finish(&hanging[0].notice, true, now);
    assert_eq!(drain(&mut state, now), ["a3", "a4"]);
    state.finish(&hanging[1].notice, true, now);
    assert!(state.namespaces.is_empty());
}

#[test]
fn the_latest_notice_of_a_dedup_key_counts() {
    let (mut state, now) = (QueueState::default(), start());
    assert_eq!(state.offer(warning("one"), now), Offered::Queued);
    let overtaken = state.offer(warning("two"), now);
    assert_eq!(overtaken, Offered::Overtaken(vec![warning("one")]));
    assert_eq!(take(&mut state, now).unwrap().notice, warning("two"));
    assert!(take(&mut state, now).is_none());
}

#[test]
fn the_end_of_a_fault_is_dropped_only_where_the_last_event_was_normal() {
    let (mut state, now) = (QueueState::default(), start());
    let good = notice(EventKind::Normal, "good");
    state.offer(warning("bad"), now);
    let overtaken = state.offer(good.clone(), now);
    assert_eq!(overtaken, Offered::Overtaken(vec![warning("bad")]));
    let sent = take(&mut state, now).unwrap();
    assert_eq!(
        sent.notice, good,
        "a former process may have published the fault"
    );
    state.finish(&sent.notice, true, now);

    state.offer(warning("bad"), now);
    let both = vec![warning("bad"), good.clone()];
    assert_eq!(state.offer(good.clone(), now), Offered::Overtaken(both));
    assert!(take(&mut state, now).is_none());

    state.offer(warning("bad"), now);
    let sent = take(&mut state, now).unwrap();
    state.finish(&sent.notice, true, now);
    state.offer(warning("worse"), now);
    let overtaken = state.offer(good.clone(), now);
    assert_eq!(overtaken, Offered::Overtaken(vec![warning("worse")]));
    assert_eq!(take(&mut state, now).unwrap().notice, good);
}

#[test]
fn a_warning_that_may_have_been_written_is_taken_back_when_all_is_well() {
    let queue = Queue::default();
    let good = notice(EventKind::Normal, "good");
    let next = || queue.state().next(start() + Duration::from_secs(30));
    queue.offer(good.clone());
    let Next::Notice(sent) = next() else { panic!() };
    queue.finish(&sent.notice, true);
    queue.offer(warning("bad"));
    let Next::Notice(sent) = next() else { panic!() };
    assert!(queue.retry(*sent, Duration::ZERO).is_empty());
    assert_eq!(
        queue.offer(good.clone()),
        Offered::Overtaken(vec![warning("bad")])
    );
    let Next::Notice(sent) = next() else { panic!() };
    assert_eq!(sent.notice, good);
}

#[test]
fn a_former_leader_keeps_its_refusals() {
    let (mut state, now) = (QueueState::default(), start());
    let mut own = to("a", "a1");
    own.aspect = Aspect::Refusal;
    for notice in [to("a", "a1"), own.clone(), to("b", "b1")] {
        state.offer(notice, now);
    }
    state.clear(|notice| notice.aspect == own.aspect);
    assert_eq!(take(&mut state, now).unwrap().notice, own);
    assert!(take(&mut state, now).is_none());
}

#[test]
fn a_second_notice_waits_until_the_first_is_sent() {
    let (mut state, now) = (QueueState::default(), start());
    state.offer(warning("one"), now);
    let first = take(&mut state, now).unwrap();
    state.offer(warning("two"), now);
    assert!(take(&mut state, now).is_none());
    state.finish(&first.notice, true, now);
    assert_eq!(take(&mut state, now).unwrap().notice, warning("two"));
}

#[test]
fn what_may_not_be_sent_yet_waits_for_its_time_and_keeps_nobody_waiting() {
    let (mut state, now) = (QueueState::default(), start());
    let at = now + Duration::from_secs(300);
    state.offer(to("a", "a1"), now);
    let queued = take(&mut state, now).unwrap();
    assert!(state.put_back(queued.clone(), Some(at)).is_empty());
    state.offer(to("a", "a2"), now);
    assert_eq!(drain(&mut state, now), ["a2"]);
    assert!(matches!(state.next(now), Next::Nothing { until } if until == Some(at)));
    assert_eq!(take(&mut state, at), Some(queued));
}

#[test]
fn a_normal_event_does_not_wait_for_the_budget_of_the_fault_that_it_overtakes() {
    let (mut state, now) = (QueueState::default(), start());
    let at = now + Duration::from_secs(300);
    state.offer(to("a", "a1"), now);
    let queued = take(&mut state, now).unwrap();
    state.put_back(queued, Some(at));
    let worse = notice_to("a", "a1", EventKind::Warning, "worse");
    state.offer(worse, now);
    assert!(take(&mut state, now).is_none());
    let good = notice_to("a", "a1", EventKind::Normal, "good");
    state.offer(good.clone(), now);
    let sent = take(&mut state, now).unwrap();
    assert_eq!(sent.notice, good);
    state.finish(&good, true, now);
    assert!(take(&mut state, at).is_none());
    assert!(state.namespaces.is_empty());
}

#[test]
fn an_unsent_notice_is_overtaken_by_a_later_one() {
    let (mut state, now) = (QueueState::default(), start());
    state.offer(warning("one"), now);
    let first = take(&mut state, now).unwrap();
    state.offer(warning("two"), now);
    assert_eq!(state.put_back(first, Some(now)), [warning("one")]);
    let second = take(&mut state, now).unwrap();
    assert_eq!(second.notice, warning("two"));
    state.offer(notice(EventKind::Normal, "good"), now);
    assert_eq!(state.put_back(second, None), [warning("two")]);
    assert_eq!(drain(&mut state, now), ["pod"]);
}

#[test]
fn a_namespace_that_fails_pauses_ever_longer_and_the_others_go_on() {
    let (mut state, mut now) = (QueueState::default(), start());
    state.offer(to("a", "a1"), now);
    let mut pauses = Vec::new();
    for number in 0..9 {
        let queued = take(&mut state, now).unwrap();
        state.pause("a", Duration::ZERO, now);
        state.pause("a", Duration::from_secs(20), now);
        state.put_back(queued, None);
        state.offer(to("b", &number.to_string()), now);
        assert_eq!(drain(&mut state, now), [number.to_string()]);
        let Next::Nothing { until: Some(until) } = state.next(now) else {
            panic!("it pauses")
        };
        pauses.push((until - now).as_millis());
        now = until;
    }
    assert_eq!(
        pauses,
        [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]
    );
    assert_eq!(drain(&mut state, now), ["a1"]);
    state.offer(to("a", "a2"), now);
    let queued = take(&mut state, now).unwrap();
    state.pause("a", Duration::from_secs(3), now);
    state.put_back(queued, None);
    let early = take(&mut state, now + Duration::from_millis(2999));
    assert!(early.is_none(), "as asked");
    let until = now + Duration::from_secs(3);
    assert_eq!(drain(&mut state, until), ["a2"]);
    assert!(state.namespaces.is_empty());
}

#[test]
fn a_full_queue_makes_room_for_a_quiet_namespace_and_none_for_a_loud_one() {
    let (mut state, now) = (QueueState::default(), start());
    for number in 0..MAX_WAITING {
        state.offer(to("loud", &format!("pod-{number}")), now);
    }
    // What has to wait for its time takes room as well.
    let at = now + Duration::from_secs(300);
    while let Some(queued) = take(&mut state, now) {
        state.put_back(queued, Some(at));
    }
    let one_more = to("loud", "one-more");
    let full = Offered::Full(Box::new(one_more.clone()));
    assert_eq!(state.offer(one_more, now), full);
    let last = to("loud", &format!("pod-{}", MAX_WAITING - 1));
    let offered = state.offer(to("quiet", "q"), now);
    assert_eq!(offered, Offered::Full(Box::new(last)));
    assert_eq!(state.waiting.len(), MAX_WAITING);
    state.offer(to("loud", "pod-0"), now);
    assert_eq!(
        state.waiting.len(),
        MAX_WAITING,
        "a later notice needs no room"
    );
    assert_eq!(drain(&mut state, now), ["q"]);
    assert_eq!(drain(&mut state, at).len(), MAX_WAITING - 1);
}

#[tokio::test]
async fn a_closed_queue_ends_when_all_has_been_tried_once_more() {
    let queue = Queue::default();
    queue.offer(to("a", "a1"));
    queue.offer(to("a", "a2"));
    let later = queue.next().await.unwrap();
    let at = Instant::now() + Duration::from_secs(300);
    queue.defer(later.clone(), at);
    queue.close();
    assert_eq!(queue.next().await.unwrap().notice, to("a", "a1"));
    queue.defer(later, at);
    assert_eq!(queue.next().await.unwrap().notice, to("a", "a2"));
    assert_eq!(queue.next().await, None);
}

#[tokio::test]
async fn next_wakes_when_a_notice_comes_and_when_its_time_comes() {
    let queue = std::sync::Arc::new(Queue::default());
    let waits = tokio::spawn({
        let queue = queue.clone();
        async move { queue.next().await.unwrap() }
    });
    tokio::task::yield_now().await;
    queue.offer(to("a", "a1"));
    let queued = waits.await.unwrap();
    queue.defer(queued.clone(), Instant::now() + Duration::from_millis(20));
    assert_eq!(queue.next().await.unwrap(), queued);
}

#[test]
fn a_fault_comes_before_refusals_and_takes_the_place_of_one() {
    let (mut state, now) = (QueueState::default(), start());
    let refusal = |pod: usize| Notice {
        aspect: Aspect::Refusal,
        ..to("ns", &format!("pod-{pod:05}"))
    };
    for pod in 0..MAX_WAITING {
        assert_eq!(state.offer(refusal(pod), now), Offered::Queued);
    }
    let one_more = refusal(MAX_WAITING);
    let full = Offered::Full(Box::new(one_more.clone()));
    assert_eq!(state.offer(one_more, now), full);
    let last = Offered::Full(Box::new(refusal(MAX_WAITING - 1)));
    assert_eq!(state.offer(to("ns", "fault"), now), last);
    assert_eq!(drain(&mut state, now)[..2], ["fault", "pod-00000"]);
}
