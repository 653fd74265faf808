package cli

import (
	"time"

	"github.com/nearside/nearside/sdk/api"
)

var (
	epochEU = api.Epoch{Generation: 1, Nonce: 0xa1}
	epochUS = api.Epoch{Generation: 3, Nonce: 0xb2}

	serviceList = api.ServiceList{Services: []api.ServiceCount{
		{
			Namespace: "default", Service: "orders", Instances: 3, Passing: 2,
			Statuses: map[api.Status]int{api.StatusPassing: 2, api.StatusDraining: 1}, Regions: []api.Region{"eu-west", "us-east"},
		},
		{Namespace: "default", Service: "payments", Statuses: map[api.Status]int{}, Regions: []api.Region{"us-east"}},
	}}

	instanceList = api.InstanceList{
		Service: "orders", Namespace: "default", Region: "eu-west", Complete: true,
		Instances: []api.Instance{
			{
				Namespace: "default", Service: "orders", ID: "orders-1", Region: "eu-west", Zone: "a", Address: "10.0.0.1", Port: 8080,
				Weight: 100, Version: "1.4.0", Tags: []string{"blue", "v1"}, TTL: api.Duration(15 * time.Second), Incarnation: 7,
				Status: api.StatusPassing, StatusSince: noon.Add(-90 * time.Second), Revision: 41,
			},
			{
				Namespace: "default", Service: "orders", ID: "orders-2", Region: "eu-west", Address: "2001:db8::1", Port: 8080,
				Weight: 50, TTL: api.Duration(15 * time.Second), Status: api.StatusWarning, StatusNote: "disk\x1b[31m",
				StatusSince: noon.Add(-26 * time.Hour), Overdue: true, Revision: 42,
			},
		},
	}

	originEU = api.Origin{Region: "eu-west", Epoch: epochEU, Revision: 42, State: api.AgeFresh, Complete: true, Source: api.SourceMemory}
	originUS = api.Origin{
		Region: "us-east", Epoch: epochUS, Revision: 9, AgeMS: 41_000, State: api.AgeSuspect, Complete: true,
		Source: api.SourceReplica, RTTMS: 76, Addresses: []string{"http://10.1.0.1:7400"},
	}

	resolution = api.Resolution{
		Service: "orders", Namespace: "default",
		Endpoints: []api.Endpoint{
			{ID: "orders-1", Address: "10.0.0.1", Port: 8080, Region: "eu-west", Zone: "a", Weight: 100, Status: api.StatusPassing, Version: "1.4.0"},
			{ID: "orders-9", Address: "10.1.0.9", Port: 8080, Region: "us-east", Zone: "b", Weight: 100, Status: api.StatusPassing, Tier: 1},
		},
		Decision: api.Decision{
			Reason: api.ReasonSameZone, Detail: "1 usable instance in zone a", Region: "eu-west",
			Tiers: []api.Tier{
				{Tier: 0, Kind: api.TierZone, Region: "eu-west", Zone: "a", Weight: 1, Usable: 1, Total: 1},
				{Tier: 1, Kind: api.TierFar, Region: "us-east", Usable: 1, Total: 1},
			},
		},
		Views: []api.Origin{originEU, originUS},
	}

	// farResolution is answered from us-east, whose data is 41 s old.
	farResolution = api.Resolution{
		Service: "orders", Namespace: "default", Endpoints: resolution.Endpoints[1:],
		Decision: api.Decision{
			Reason: api.ReasonLocalAbsent, Detail: "eu-west has no orders", Region: "us-east",
			Tiers: []api.Tier{{Tier: 1, Kind: api.TierFar, Region: "us-east", Weight: 1, Usable: 1, Total: 1}},
		},
		Views: resolution.Views,
	}

	panicResolution = api.Resolution{
		Service: "orders", Namespace: "default",
		Endpoints: []api.Endpoint{{ID: "orders-3", Address: "10.0.0.3", Port: 80, Region: "eu-west", Weight: 100, Status: api.StatusCritical}},
		Decision: api.Decision{
			Reason: api.ReasonPanic, Detail: "nothing usable anywhere", Panic: true, Region: "eu-west",
			Tiers: []api.Tier{{Tier: 0, Kind: api.TierOverflow, Region: "eu-west", Weight: 1, Total: 1}},
		},
		Views: []api.Origin{originEU},
	}

	emptyResolution = api.Resolution{
		Service: "orders", Namespace: "default", Endpoints: []api.Endpoint{}, Views: []api.Origin{originEU},
		Decision: api.Decision{Reason: api.ReasonNoInstances, Detail: "orders was known once, but nothing is left to offer", Tiers: []api.Tier{}},
	}

	explained = api.Explanation{
		Resolution: resolution, From: "eu-west/a",
		Trace: api.Trace{
			Steps: []api.TraceStep{
				{Step: "known", In: 4, Out: 4},
				{Step: "status", In: 4, Out: 2, Dropped: []api.TraceDrop{
					{ID: "orders-2", Region: "eu-west", Why: "draining"}, {ID: "orders-4", Region: "us-east", Why: "draining"},
				}},
			},
			WouldChange: []string{"1 more of zone a fails: us-east"},
		},
	}

	regionList = api.RegionList{Home: "eu-west", Regions: []api.RegionInfo{
		{
			Origin: originEU, Self: true, Services: 2, Instances: 3, Passing: 3,
			Protection: &api.Protection{
				Registered: 3, Allowed: 1, Share: 0.15, Window: api.Duration(time.Minute), Why: "all heartbeats arrive",
			},
		},
		{Origin: originUS, Link: "unreachable", Services: 5, Instances: 12, Passing: 9},
	}}

	federationInfo = api.FederationInfo{
		Region: "eu-west", Epoch: epochEU, Revision: 42, Enabled: true,
		Readers: []api.ReaderInfo{{Region: "us-east", Proto: 2, CanaryMS: 130}},
		Links: []api.LinkInfo{{
			Peer: "us-east", Addresses: []string{"http://10.1.0.1:7402"}, State: "unreachable", Since: noon.Add(-40 * time.Second),
			LastError: "connection refused", Attempts: 6, RTTMS: 76, BytesIn: 1234, Frames: 20, Snapshots: 1, Services: 5, Replica: originUS, HeadLag: 2,
			BehindMS: 1500, Canary: &api.Canary{LastMS: 90, P50MS: 80, P99MS: 120, AgeMS: 40_000, Count: 60},
			PeerView:    &api.PeerView{State: api.AgeSuspect, AgeMS: 70_000, Revision: 3, Complaint: "us-east does not reach our federation; what it knows of us is 1m10s old"},
			Quarantined: 2, QuarantinedRows: []api.QuarantinedRow{{Row: "default/orders", Reason: "counts do not add up"}}, Held: 3, HeldForMS: 12_000,
			Verdict: &api.RegionVerdict{
				Agree: 1, Of: 2, Needed: 2, Probed: 4, Failed: 4, Why: "neither its federation nor its endpoints answer here, but only 1 of 2 say so and 2 are needed; ap-south reaches it",
				Says: []api.RegionWord{{By: "eu-west", Link: api.LinkDown, Probes: api.ProbesSilent}, {By: "ap-south", Link: api.LinkUp}},
			},
		}},
	}

	verified = api.Verification{
		Region: "us-east", Result: api.VerifyEqual, Held: originUS.Version(), Origin: originUS.Version(), Digest: "00000000000000aa",
		OriginDigest: "00000000000000aa", Rows: 5, OriginRows: 5, Differences: []api.RowDifference{}, Tries: 1, TookMS: 80,
	}

	ready = api.Readiness{Ready: true, Region: "eu-west", Node: "n1", Checks: []api.ReadinessCheck{{Name: "catalog", OK: true}, {Name: "store", OK: true}}}

	notReady = api.Readiness{Region: "eu-west", Node: "n1", Checks: []api.ReadinessCheck{
		{Name: "catalog", OK: true}, {Name: "store", Cause: "etcd does not answer"},
	}}
)

// wholeNode is a node that answers everything well.
func wholeNode() map[string]reply {
	return map[string]reply{
		"GET /v1/services":                          {body: serviceList},
		"GET /v1/services/orders/instances":         {body: instanceList},
		"GET /v1/resolve/orders":                    {body: resolution},
		"GET /v1/explain/orders":                    {body: explained},
		"GET /v1/explain/orders?from=eu-west%2Fa":   {body: explained},
		"GET /v1/regions":                           {body: regionList},
		"GET /v1/regions/eu-west":                   {body: regionList.Regions[0]},
		"GET /v1/federation":                        {body: federationInfo},
		"POST /v1/federation/verify?region=us-east": {body: verified},
		"GET /readyz":                               {body: ready},
		"DELETE /v1/services/orders/instances/o-1":  {status: 204},
	}
}
