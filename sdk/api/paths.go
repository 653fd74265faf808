package api

import (
	"net/url"
	"strconv"
	"time"
)

// Headers of every answer of a region node.
const (
	HeaderRegion    = "Nearside-Region"
	HeaderEpoch     = "Nearside-Epoch"
	HeaderRevision  = "Nearside-Revision"
	HeaderAgeMS     = "Nearside-Age-Ms" // milliseconds since the origin confirmed the data
	HeaderSource    = "Nearside-Source" // one of the Source values
	HeaderRequestID = "X-Request-Id"
	// HeaderNode names the node that answered.
	HeaderNode = "Nearside-Node"
	// HeaderKeyRevision and HeaderKeyCreated come with the raw value of a key: the revisions
	// of its last write (give it back as ?cas=) and of its first. HeaderRevision is, as in
	// every answer, where the whole catalogue stood.
	HeaderKeyRevision = "Nearside-Key-Revision"
	HeaderKeyCreated  = "Nearside-Key-Created"
)

// Where an answer comes from.
const (
	SourceMemory   = "memory"   // the node's catalogue
	SourceStore    = "store"    // confirmed with the store (consistency=strong)
	SourceReplica  = "replica"  // another region's summary
	SourceSnapshot = "snapshot" // a file written earlier
	SourceNone     = "none"     // nowhere: the region was never heard of; its age is that of the waiting
)

// Paths of HTTP v1 that take no argument.
const (
	PathServices   = "/v1/services"
	PathWatch      = "/v1/watch"
	PathRegions    = "/v1/regions"
	PathFederation = "/v1/federation"
	PathLimits     = "/v1/limits"
	PathSnapshot   = "/v1/snapshot"
	PathEvents     = "/v1/events"
	PathPolicies   = "/v1/policies"
	PathWhatIf     = "/v1/whatif"
	PathLivez      = "/livez"
	PathReadyz     = "/readyz"
	PathMetrics    = "/metrics"
	PathKV         = "/v1/kv/" // keys as a list; a key's own path is PathKVKey
	PathPrometheus = "/v1/sd/prometheus"
	PathOpenAPI    = "/v1/openapi.yaml"

	PathBatchRegister   = "/v1/batch/register"
	PathBatchHeartbeats = "/v1/batch/heartbeats"
)

// PathService returns the path of one service: DELETE /v1/services/{service}.
func PathService(s ServiceName) string { return PathServices + "/" + url.PathEscape(string(s)) }

// PathInstances returns the path of a service's instances.
func PathInstances(s ServiceName) string {
	return PathServices + "/" + url.PathEscape(string(s)) + "/instances"
}

// PathInstance returns the path of one instance.
func PathInstance(s ServiceName, id InstanceID) string {
	return PathInstances(s) + "/" + url.PathEscape(string(id))
}

// PathResolve returns the path of GET /v1/resolve/{service}.
func PathResolve(s ServiceName) string { return "/v1/resolve/" + url.PathEscape(string(s)) }

// PathExplain returns the path of GET /v1/explain/{service}.
func PathExplain(s ServiceName) string { return "/v1/explain/" + url.PathEscape(string(s)) }

// PathRegion returns the path of GET /v1/regions/{region}.
func PathRegion(r Region) string { return PathRegions + "/" + url.PathEscape(string(r)) }

// PathEpoch returns the path of POST /v1/regions/{region}/epoch.
func PathEpoch(r Region) string { return PathRegion(r) + "/epoch" }

// PathMembers returns the path of GET and POST /v1/regions/{region}/members.
func PathMembers(r Region) string { return PathRegion(r) + "/members" }

// PathMember returns the path of DELETE /v1/regions/{region}/members/{node}.
func PathMember(r Region, node string) string { return PathMembers(r) + "/" + url.PathEscape(node) }

// PathRegionDrain returns the path of GET, PUT and DELETE /v1/regions/{region}/drain.
func PathRegionDrain(r Region) string { return PathRegion(r) + "/drain" }

// PathPolicy returns the path of a service's policy; of the default's with PolicyDefault.
func PathPolicy(s ServiceName) string { return PathPolicies + "/" + url.PathEscape(string(s)) }

// AgeHeader returns the value of HeaderAgeMS for an age.
func AgeHeader(age time.Duration) string { return strconv.FormatInt(age.Milliseconds(), 10) }
