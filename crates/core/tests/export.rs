//! Exports: how long one stays open that nobody is connected to.

use cairn_testkit::World;
use cairn_types::ObjectType;

use crate::first_backup;

#[tokio::test]
async fn an_export_stays_while_somebody_asks_for_it_and_ends_after_that() {
    let world = World::new().await;
    let (service, caller) = (&world.service, world.caller());
    let backup = first_backup(&world, ObjectType::Disk, world.disk().await).await;
    let made = service.create_export(caller, backup, true).await.unwrap();
    for _ in 0..5 {
        world.clock.advance(599);
        assert_eq!(service.end_stale_exports().await.unwrap(), 0);
        service.show_export(caller, made.id).unwrap();
    }
    // To be in a list is to be used by nobody.
    world.clock.advance(599);
    assert_eq!(service.list_exports(caller).len(), 1);
    world.clock.advance(1);
    assert_eq!(service.end_stale_exports().await.unwrap(), 1);
    assert!(service.list_exports(caller).is_empty());
}

#[tokio::test]
async fn a_connection_keeps_an_export_without_being_asked_for() {
    let world = World::new().await;
    let (service, caller) = (&world.service, world.caller());
    let backup = first_backup(&world, ObjectType::Disk, world.disk().await).await;
    let made = service.create_export(caller, backup, false).await.unwrap();
    let connection = service.connect_export(caller, made.id).unwrap();
    world.clock.advance(6000);
    assert_eq!(service.end_stale_exports().await.unwrap(), 0);
    drop(connection);
    world.clock.advance(599);
    assert_eq!(service.end_stale_exports().await.unwrap(), 0);
    world.clock.advance(1);
    assert_eq!(service.end_stale_exports().await.unwrap(), 1);
}
