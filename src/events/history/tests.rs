use super::super::notice::Aspect;
use super::super::notice::tests::{notice, notice_to};
use super::*;
use k8s_openapi::api::core::v1::EventSeries;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

const REMINDER: Duration = Duration::from_secs(300);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn since(kind: EventKind, second: i64) -> Notice {
    let mut notice = notice(kind, "note");
    notice.since = at(second);
    notice
}

#[test]
fn a_fault_is_published_again_as_a_reminder_or_when_it_comes_back() {
    let known = PublishedEvent {
        count: 1,
        last: at(1000),
        content: None,
        version: None,
    };
    for (second, now, fault, resolved) in [
        (990, 1100, Due::Not, Due::Not),
        (1000, 1100, Due::Not, Due::Not),
        (1003, 1100, Due::Not, Due::News),
        (990, 1300, Due::Reminder, Due::Not),
        (1050, 1100, Due::News, Due::News),
    ] {
        let due = |kind| known.due(&since(kind, second), REMINDER, at(now));
        assert_eq!(due(EventKind::Warning), fault, "{second} {now}");
        assert_eq!(due(EventKind::Normal), resolved, "{second} {now}");
    }
}

#[test]
fn an_event_before_another_is_news_again() {
    let mut history = EventHistory::new(REMINDER);
    let (bad, good) = (
        since(EventKind::Warning, 1000),
        since(EventKind::Normal, 1001),
    );
    let event = |notice: &Notice, second| notice.event("instance", at(second));
    let known = history.record(&bad, &event(&bad, 1000));
    assert_eq!(history.due(&bad, &known, at(1001)), Due::Not);
    let later = history.record(&good, &event(&good, 1001));
    assert_eq!(history.due(&bad, &known, at(1001)), Due::News);
    assert_eq!(history.due(&good, &later, at(1001)), Due::Not);
    // Another replica has said meanwhile that it is resolved.
    history.record(&bad, &event(&bad, 1002));
    let by_another = PublishedEvent::of(&event(&good, 1003), &good);
    assert_eq!(history.due(&good, &by_another, at(1004)), Due::Not);
}

#[test]
fn another_message_in_the_same_event_is_news() {
    let mut history = EventHistory::new(REMINDER);
    let fault = |note: &str| Notice {
        note: String::from(note),
        ..since(EventKind::Warning, 1000)
    };
    let (first, second) = (fault("first"), fault("second"));
    let event = first.event("instance", at(1000));
    let known = history.record(&first, &event);
    assert_eq!(history.due(&first, &known, at(1001)), Due::Not);
    assert_eq!(history.due(&second, &known, at(1001)), Due::News);
    // So it is for a replica that finds the Event of another one.
    let found = PublishedEvent::of(&event, &second);
    assert_eq!(history.due(&second, &found, at(1001)), Due::News);
    let found = PublishedEvent::of(&event, &first);
    assert_eq!(history.due(&first, &found, at(1001)), Due::Not);
    let topical = |note: &str| Notice {
        topic: Some("topic".into()),
        ..fault(note)
    };
    let known = history.record(&topical("3 pods"), &event);
    assert_eq!(history.due(&topical("4 pods"), &known, at(1001)), Due::Not);
}

#[test]
fn two_events_of_one_dedup_key_are_written_in_different_seconds() {
    let mut history = EventHistory::new(REMINDER);
    let (bad, good) = (
        since(EventKind::Warning, 1000),
        since(EventKind::Normal, 1000),
    );
    let later = |milliseconds| Timestamp::from_millisecond(milliseconds).unwrap();
    assert_eq!(history.until_next_second(&bad, later(1_000_200)), None);
    history.record(&bad, &bad.event("instance", later(1_000_200)));
    for (now, wait) in [
        (1_000_000, Some(1000)),
        (1_000_300, Some(700)),
        (1_000_999, Some(1)),
        (1_001_000, None),
        (999_999, None),
        (9_000_000, None),
    ] {
        let wait = wait.map(Duration::from_millis);
        assert_eq!(history.until_next_second(&good, later(now)), wait, "{now}");
        assert_eq!(history.until_next_second(&bad, later(now)), None, "{now}");
    }
}

#[test]
fn reminders_leave_enough_for_news() {
    let (mut history, now) = (EventHistory::new(REMINDER), Instant::now());
    let fault = notice(EventKind::Warning, "fault");
    let reminders = (0..25).filter(|_| history.take_for_reminder(&fault, now));
    assert_eq!(reminders.count(), 15);
    for _ in 0..RESERVE {
        assert_eq!(history.take(&fault, now), Ok(()));
    }
    assert!(history.take(&fault, now).is_err());
}

#[test]
fn a_series_continues_from_its_count() {
    let fault = notice(EventKind::Warning, "note");
    let mut stored = fault.event("instance", at(1000));
    stored.metadata.resource_version = Some("5".into());
    let as_stored = |count, last| PublishedEvent {
        count,
        last,
        content: Some(fault.content()),
        version: Some("5".into()),
    };
    assert_eq!(PublishedEvent::of(&stored, &fault), as_stored(1, at(1000)));
    stored.series = Some(EventSeries {
        count: Some(7),
        last_observed_time: Some(MicroTime(at(1300))),
    });
    assert_eq!(PublishedEvent::of(&stored, &fault), as_stored(7, at(1300)));
    // A writer that knows one generation of the API changes the fields of that alone.
    (stored.count, stored.last_timestamp) = (Some(9), Some(Time(at(1400))));
    assert_eq!(PublishedEvent::of(&stored, &fault), as_stored(9, at(1400)));
    let other = notice(EventKind::Warning, "other");
    assert_eq!(PublishedEvent::of(&stored, &other).content, None);
    let nothing = Event::default();
    let unknown = PublishedEvent {
        count: 1,
        last: at(0),
        content: None,
        version: None,
    };
    assert_eq!(PublishedEvent::of(&nothing, &fault), unknown);
}

#[test]
fn an_object_has_one_budget_for_all_faults() {
    let (mut history, now) = (EventHistory::new(REMINDER), Instant::now());
    for number in 0..25 {
        let notice = notice(EventKind::Warning, &number.to_string());
        assert_eq!(history.take(&notice, now), Ok(()));
    }
    let one_more = notice(EventKind::Warning, "more");
    assert_eq!(history.take(&one_more, now), Err(now + PER_OBJECT.period));
    history.give_back(&one_more);
    assert_eq!(history.take(&one_more, now), Ok(()));
    let mut other = one_more.clone();
    other.regarding.uid = Some("other".into());
    assert_eq!(history.take(&other, now), Ok(()));
}

#[test]
fn the_end_of_a_fault_is_published_at_once() {
    let (mut history, mut now) = (EventHistory::new(REMINDER), Instant::now());
    let good = notice(EventKind::Normal, "good");
    let fault = notice(EventKind::Warning, "fault");
    let refusal = Notice {
        aspect: Aspect::Refusal,
        ..fault.clone()
    };
    let mut count = 0;
    // A day of somebody who breaks and mends it every minute.
    for _ in 0..24 * 60 {
        now += Duration::from_secs(60);
        for bad in [&fault, &refusal] {
            if history.take(bad, now).is_ok() {
                assert_eq!(history.take(&good, now), Ok(()), "after {count}");
                count += 1;
            }
        }
    }
    assert!((600..700).contains(&count), "{count}");
}

#[test]
fn refusals_take_nothing_from_the_budget_for_faults() {
    let (mut history, now) = (EventHistory::new(REMINDER), Instant::now());
    let refusal = Notice {
        aspect: Aspect::Refusal,
        ..notice(EventKind::Warning, "refused")
    };
    for _ in 0..PER_OBJECT.burst {
        assert_eq!(history.take(&refusal, now), Ok(()));
    }
    assert!(history.take(&refusal, now).is_err());
    assert!(!history.take_for_reminder(&refusal, now));
    let fault = notice(EventKind::Warning, "fault");
    for _ in 0..PER_OBJECT.burst {
        assert_eq!(history.take(&fault, now), Ok(()));
    }
    assert!(history.take(&fault, now).is_err());
    history.give_back(&refusal);
    assert_eq!(history.take(&refusal, now), Ok(()));
}

#[test]
fn refusals_are_bounded_in_a_namespace_over_all_objects() {
    let (mut history, now) = (EventHistory::new(REMINDER), Instant::now());
    let refusal = |pod: usize| Notice {
        aspect: Aspect::Refusal,
        ..notice_to("ns", &pod.to_string(), EventKind::Warning, "refused")
    };
    let known = (0..10_000).filter(|pod| history.take(&refusal(*pod), now).is_ok());
    assert_eq!(known.count(), 500);
    let fault = notice_to("ns", "0", EventKind::Warning, "fault");
    assert_eq!(history.take(&fault, now), Ok(()));
}

#[test]
fn what_is_long_past_is_forgotten() {
    let mut history = EventHistory::new(REMINDER);
    for number in 0..=MAX_ENTRIES {
        let notice = notice_to("ns", &number.to_string(), EventKind::Warning, "note");
        let last = if number == 0 { at(10_000) } else { at(0) };
        history.record(&notice, &notice.event("instance", last));
    }
    let now = Instant::now();
    history.prune(at(10_000), now);
    assert_eq!(history.published.len(), 1);
}
