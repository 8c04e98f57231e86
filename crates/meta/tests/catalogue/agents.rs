//! Agents and their paths.

use cairn_meta::{Agent, AgentFilter, AgentPath, Page};
use cairn_types::{AgentId, ProjectId, ResourceId};

use crate::fixtures::*;

fn agent(project: ProjectId, second: i64) -> Agent {
    Agent {
        id: AgentId::random(),
        project,
        status: "normal".to_owned(),
        host_name: format!("host-{second}"),
        host_ip: "192.0.2.1".to_owned(),
        host_os: "linux".to_owned(),
        host_nickname: String::new(),
        agent_type: None,
        agent_version: Some("1.0.0".to_owned()),
        last_active_at: at(second),
        created_at: at(second),
        updated_at: at(second),
        sealed_secret: None,
        server: None,
    }
}

#[tokio::test]
async fn a_server_has_one_agent_at_a_time() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let mut tx = meta.begin().await.unwrap();
        let (server, other) = (ResourceId::random(), ResourceId::random());
        let mut first = agent(project, 1);
        first.server = Some(server);
        tx.insert_agent(&first).await.unwrap();
        let mut second = agent(project, 2);
        tx.insert_agent(&second).await.unwrap();
        let found = tx.agents_in(project, &[other, server]).await.unwrap();
        assert_eq!(found, [first.clone()]);
        assert_eq!(tx.agents_in(project, &[]).await.unwrap(), []);
        assert_eq!(tx.agents_in(project, &[other]).await.unwrap(), []);
        tx.free_server(project, server).await.unwrap();
        second.server = Some(server);
        tx.update_agent(&second).await.unwrap();
        assert_eq!(tx.agents_in(project, &[server]).await.unwrap(), [second]);
        first.server = None;
        assert_eq!(tx.agent(project, first.id).await.unwrap(), Some(first));
    })
    .await;
}

#[tokio::test]
async fn agents_are_kept_listed_and_removed_with_their_paths() {
    on_each_database(async |meta| {
        let project = project(&meta).await;
        let mut tx = meta.begin().await.unwrap();
        let agents: Vec<Agent> = (0..3).map(|second| agent(project, second)).collect();
        for agent in &agents {
            tx.insert_agent(agent).await.unwrap();
        }
        for (position, path) in ["/b", "/a"].into_iter().enumerate() {
            let path = AgentPath {
                id: uuid::Uuid::new_v4().to_string(),
                agent: agents[0].id,
                path: path.to_owned(),
                excluded: vec![format!("{path}/x")],
                position: position as i64,
            };
            tx.insert_agent_path(project, &path).await.unwrap();
        }
        let mut changed = agents[1].clone();
        changed.status = "uninstall".to_owned();
        changed.agent_type = Some("cloud".to_owned());
        tx.update_agent(&changed).await.unwrap();
        let found = tx.lock_agent(project, changed.id).await.unwrap();
        assert_eq!(found, Some(changed));

        let all = AgentFilter::default;
        let ids = |agents: &[Agent]| agents.iter().map(|one| one.id).collect::<Vec<_>>();
        let newest: Vec<_> = agents.iter().rev().map(|one| one.id).collect();
        let (listed, count) = tx.agents(project, &all(), &everything(2)).await.unwrap();
        assert_eq!((ids(&listed), count), (newest[..2].to_vec(), 3));
        let behind = Page {
            limit: 9,
            offset: 0,
            marker: Some(newest[0].to_string()),
        };
        let (listed, _) = tx.agents(project, &all(), &behind).await.unwrap();
        assert_eq!(ids(&listed), newest[1..]);
        let normal = AgentFilter {
            status: Some("normal".to_owned()),
            ids: vec![agents[1].id, agents[2].id],
        };
        let (listed, _) = tx.agents(project, &normal, &everything(9)).await.unwrap();
        assert_eq!(ids(&listed), [agents[2].id]);

        let first = agents[0].id;
        let paths = tx.paths_of_agents(project, &newest).await.unwrap();
        let names: Vec<_> = paths.iter().map(|path| path.path.as_str()).collect();
        assert_eq!(names, ["/b", "/a"], "in the order in which they came");
        assert_eq!(paths[0].excluded, ["/b/x"]);
        assert!(tx.remove_agent_path(project, first, "/b").await.unwrap());
        assert!(!tx.remove_agent_path(project, first, "/b").await.unwrap());
        // Another project sees and changes nothing of them.
        let other = ProjectId::random();
        assert!(tx.agent(other, first).await.unwrap().is_none());
        tx.remove_agent(other, first).await.unwrap();
        tx.remove_agent(project, first).await.unwrap();
        assert!(tx.agent(project, first).await.unwrap().is_none());
        let left = tx.paths_of_agents(project, &newest).await.unwrap();
        assert!(left.is_empty());
    })
    .await;
}
