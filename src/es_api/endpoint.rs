//! The endpoints of the API, and the methods that each allows. Pure.

use crate::http::Method::{self, Delete, Get, Head, Post, Put};
use crate::search::store::AdminApi;

/// An endpoint of the API. The path alone determines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `/`
    Info,
    License,
    /// `_license/basic_status` and `_license/trial_status`.
    LicenseStatus,
    XpackInfo,
    /// `_nodes`: the only node of the service.
    Nodes,
    NodesStats,
    ClusterSettings,
    PendingTasks,
    Health,
    CatIndices,
    CatHealth,
    CatNodes,
    CatMaster,
    /// `_cat/plugins`, which is empty.
    CatPlugins,
    CatCount,
    CatAliases,
    CatTemplates,
    Search,
    /// Several searches in one request.
    MultiSearch,
    Count,
    /// The next page of a scroll, or its end.
    Scroll,
    /// Opens a point in time.
    OpenPointInTime,
    ClosePointInTime,
    Bulk,
    /// A document whose ID the store chooses.
    New,
    /// A document with an ID.
    Document,
    /// A document with an ID that must not exist.
    Create,
    /// The source of a document without its metadata.
    Source,
    Update,
    DeleteByQuery,
    /// Several documents by ID.
    MultiGet,
    Refresh,
    /// `_flush`, `_flush/synced`.
    Flush,
    ForceMerge,
    CacheClear,
    Mapping,
    /// `_mapping` without an index.
    AllMappings,
    FieldMapping,
    FieldCaps,
    Settings,
    Stats,
    /// `_alias` without a name.
    AliasList,
    /// `_alias/NAME` for all indices.
    AliasOfAll,
    /// `INDEX/_alias/NAME`.
    Alias,
    /// `_aliases`: several changes in one request.
    AliasActions,
    Template,
    TemplateList,
    IndexTemplate,
    IndexTemplateList,
    ComponentTemplate,
    ComponentTemplateList,
    Analyze,
    ValidateQuery,
    LifecyclePolicy,
    Pipeline,
    PipelineList,
    /// An index with its settings and mapping.
    Index,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It reads events.
    Query,
    /// It stores events, or changes mappings, templates, settings and the like.
    Write,
    /// It asks for the state of the server or of indices.
    Describe,
}

impl Endpoint {
    /// What a request with this method is for. Each endpoint is listed, so that a new one is not forgotten.
    #[rustfmt::skip]
    pub(super) fn purpose(self, method: Method) -> Purpose {
        use Endpoint as E;
        match self {
            E::Search | E::MultiSearch | E::Count | E::Scroll | E::OpenPointInTime | E::ClosePointInTime
            | E::Source | E::MultiGet | E::FieldCaps | E::ValidateQuery => Purpose::Query,
            E::Document if matches!(method, Get | Head) => Purpose::Query,
            E::Refresh | E::Analyze => Purpose::Describe,
            E::Info | E::License | E::LicenseStatus | E::XpackInfo | E::Nodes | E::NodesStats | E::ClusterSettings
            | E::PendingTasks | E::Health | E::CatIndices | E::CatHealth | E::CatNodes | E::CatMaster | E::CatPlugins
            | E::CatCount | E::CatAliases | E::CatTemplates | E::Bulk | E::New | E::Document | E::Create | E::Update
            | E::DeleteByQuery | E::Flush | E::ForceMerge | E::CacheClear | E::Mapping | E::AllMappings
            | E::FieldMapping | E::Settings | E::Stats | E::AliasList | E::AliasOfAll | E::Alias | E::AliasActions
            | E::Template | E::TemplateList | E::IndexTemplate | E::IndexTemplateList | E::ComponentTemplate
            | E::ComponentTemplateList | E::LifecyclePolicy | E::Pipeline | E::PipelineList | E::Index => {
                match method {
                    Get | Head | Method::Options => Purpose::Describe,
                    _ => Purpose::Write,
                }
            }
        }
    }

    /// The allowed methods, as Elasticsearch lists them in an error.
    pub(super) fn methods(self) -> &'static [Method] {
        use Endpoint as E;
        match self {
            E::Info | E::Source | E::XpackInfo => &[Head, Get],
            E::LicenseStatus | E::Nodes | E::NodesStats | E::PendingTasks | E::Health | E::Stats => &[Get],
            E::CatNodes | E::CatMaster | E::CatPlugins | E::CatIndices | E::CatHealth => &[Get],
            E::CatCount | E::CatAliases | E::CatTemplates | E::AllMappings | E::FieldMapping => &[Get],
            E::TemplateList | E::IndexTemplateList | E::ComponentTemplateList | E::PipelineList => &[Get],
            E::Search | E::MultiSearch | E::Count | E::MultiGet | E::FieldCaps => &[Post, Get],
            E::Refresh | E::Flush | E::Analyze | E::ValidateQuery | E::AliasActions => &[Post, Get],
            E::New | E::Update | E::DeleteByQuery | E::ForceMerge | E::CacheClear => &[Post],
            E::Bulk | E::Create => &[Post, Put],
            E::OpenPointInTime => &[Post],
            E::ClosePointInTime => &[Delete],
            E::Scroll => &[Delete, Post, Get],
            E::License => &[Delete, Post, Put, Get],
            E::ClusterSettings | E::Settings => &[Put, Get],
            E::Mapping => &[Post, Put, Get],
            E::AliasList => &[Head, Put, Get],
            E::AliasOfAll => &[Head, Post, Put, Get],
            E::Alias | E::Template | E::IndexTemplate | E::ComponentTemplate => {
                &[Delete, Head, Post, Put, Get]
            }
            E::LifecyclePolicy => &[Delete, Post, Head, Put, Get],
            E::Pipeline => &[Delete, Put, Get],
            E::Document => &[Delete, Post, Head, Put, Get],
            E::Index => &[Delete, Head, Put, Get],
        }
    }

    /// True for what a cluster keeps itself. Such requests are forwarded as they are.
    pub(super) fn is_kept_by_cluster(self) -> bool {
        use Endpoint as E;
        matches!(
            self,
            E::Template
                | E::TemplateList
                | E::IndexTemplate
                | E::IndexTemplateList
                | E::ComponentTemplate
                | E::ComponentTemplateList
                | E::Alias
                | E::AliasList
                | E::AliasOfAll
                | E::AliasActions
                | E::Settings
                | E::FieldMapping
                | E::FieldCaps
                | E::Stats
                | E::CatCount
                | E::CatAliases
                | E::CatTemplates
                | E::Analyze
                | E::ValidateQuery
                | E::LifecyclePolicy
                | E::Pipeline
                | E::PipelineList
                | E::Flush
                | E::ForceMerge
                | E::CacheClear
        )
    }

    /// The admin API of a cluster to which a GET of this endpoint is forwarded.
    pub(super) fn admin_api(self) -> Option<AdminApi> {
        Some(match self {
            Endpoint::Index => AdminApi::Index,
            Endpoint::Mapping | Endpoint::AllMappings => AdminApi::Mapping,
            Endpoint::Health => AdminApi::Health,
            Endpoint::CatHealth => AdminApi::CatHealth,
            Endpoint::CatIndices => AdminApi::CatIndices,
            _ => return None,
        })
    }
}
