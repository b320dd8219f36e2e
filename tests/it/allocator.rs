//! Whose memory libclamav gets.

use crate::service::Service;

#[tokio::test]
async fn libclamav_allocates_with_mimalloc_in_the_program() {
    let (service, _) = Service::start_http(&[]).await;
    let expected = if cfg!(feature = "mimalloc") { "mimalloc" } else { "system" };
    assert_eq!(service.until_logged("loading the definitions", 1).await[0]["allocator"], expected);
}

/// An allocator is the choice of the program that embeds this crate.
#[test]
fn the_library_brings_no_allocator() {
    assert_eq!(clamgate::engine::allocator(), "system");
}
