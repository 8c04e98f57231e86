//! Domains, projects, users, keys and tokens, and the catalogue itself.

use crate::fixtures::*;
use cairn_meta::{AccessKey, Grant, Token, User, VaultFilter};
use cairn_types::{Role, UserId};

#[tokio::test]
async fn identities_are_found_by_every_name_they_have() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let mut tx = meta.begin().await.unwrap();
        let domain = tx.domain_by_name("cairn").await.unwrap().unwrap().id;
        let user = User {
            id: UserId::random(),
            domain,
            name: "admin".to_owned(),
            password_hash: "$argon2id$".to_owned(),
            created_at: at(2),
        };
        tx.insert_user(&user).await.unwrap();
        assert_eq!(tx.projects_of(user.id, None).await.unwrap(), []);
        let grant = Grant {
            user: user.id,
            project,
            role: Role::Administrator,
        };
        tx.insert_grant(&grant).await.unwrap();
        let key = AccessKey {
            access_key: "AK".to_owned(),
            user: user.id,
            sealed_secret: "00".to_owned(),
            created_at: at(3),
        };
        tx.insert_access_key(&key).await.unwrap();
        let mut token = Token {
            digest: "d".to_owned(),
            user: user.id,
            project: Some(project),
            issued_at: at(3),
            expires_at: at(10),
        };
        tx.insert_token(&token).await.unwrap();
        token.digest = "e".to_owned();
        token.project = None;
        token.expires_at = at(20);
        tx.insert_token(&token).await.unwrap();
        tx.commit().await.unwrap();

        let mut tx = meta.begin().await.unwrap();
        assert_eq!(
            tx.user_by_name(domain, "admin").await.unwrap().as_ref(),
            Some(&user)
        );
        assert_eq!(tx.user_by_name(domain, "Admin").await.unwrap(), None);
        assert_eq!(
            tx.users(domain, None).await.unwrap(),
            std::slice::from_ref(&user)
        );
        assert_eq!(tx.grant(user.id, project).await.unwrap(), Some(grant));
        assert_eq!(tx.access_key("AK").await.unwrap(), Some(key));
        assert_eq!(
            tx.projects_of(user.id, Some("cairn-1"))
                .await
                .unwrap()
                .len(),
            1
        );
        assert_eq!(
            tx.projects_of(user.id, Some("cairn")).await.unwrap().len(),
            0
        );
        assert_eq!(tx.remove_ended_tokens(at(10)).await.unwrap(), 1);
        assert_eq!(tx.token("e").await.unwrap(), Some(token));
        assert_eq!(tx.token("d").await.unwrap(), None);
        // A second of the same name is refused as what it is.
        let error = tx
            .insert_user(&User {
                id: UserId::random(),
                ..user
            })
            .await
            .unwrap_err();
        assert!(error.is_duplicate(), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn a_catalogue_belongs_to_one_repository() {
    on_each_database(async |meta| {
        let mut tx = meta.begin().await.unwrap();
        assert_eq!(tx.repository_id().await.unwrap(), None);
        tx.insert_repository_id("one").await.unwrap();
        assert_eq!(tx.repository_id().await.unwrap().as_deref(), Some("one"));
        assert!(
            tx.insert_repository_id("two")
                .await
                .unwrap_err()
                .is_duplicate()
        );
    })
    .await;
}

#[tokio::test]
async fn a_transaction_that_is_dropped_changes_nothing() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let mut tx = meta.begin().await.unwrap();
        tx.insert_vault(&vault(project, "lost", 1)).await.unwrap();
        drop(tx);
        let mut tx = meta.read().await.unwrap();
        let (found, count) = tx
            .vaults(project, &VaultFilter::default(), &everything(10))
            .await
            .unwrap();
        assert_eq!((found.len(), count), (0, 0));
    })
    .await;
}
