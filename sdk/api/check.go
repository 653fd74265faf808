package api

import (
	"encoding/json"
	"strconv"
	"time"
)

// CheckKind says how a check looks at an instance.
type CheckKind string

// The kinds. All but ttl are run by the region, against the instance's own address.
const (
	CheckHTTP  CheckKind = "http"  // GET: 200 to 399 passes, and no redirect is followed
	CheckHTTPS CheckKind = "https" // the same over TLS, the certificate not verified
	CheckTCP   CheckKind = "tcp"   // a connection is accepted
	CheckGRPC  CheckKind = "grpc"  // grpc.health.v1 says SERVING, without TLS
	CheckTTL   CheckKind = "ttl"   // the instance sends heartbeats
)

// CheckRole says what a check decides, with the meaning that Kubernetes gives its probes.
type CheckRole string

// The roles.
const (
	// RoleStartup holds the other checks back until it passed once; until then the instance
	// is starting. It then stops.
	RoleStartup CheckRole = "startup"
	// RoleReadiness decides whether the instance is offered. It begins as not passing.
	RoleReadiness CheckRole = "readiness"
	// RoleLiveness begins as passing. When it fails the instance is critical, and after
	// DeregisterAfter of that it is removed.
	RoleLiveness CheckRole = "liveness"
)

// Check is a rule by which an instance's health is judged. Normalize fills in what is
// zero. Only as many equal results in a row as a threshold says change its status; a check
// that could not be carried out (no free socket, say) says nothing.
type Check struct {
	Name string    `json:"name,omitempty"` // unique within the instance; default: the kind
	Kind CheckKind `json:"kind"`
	Role CheckRole `json:"role,omitempty"` // default readiness
	// Port is the name of one of the instance's ports or a number; default: the instance's.
	Port    CheckPort `json:"port,omitempty"`
	Path    string    `json:"path,omitempty"`    // http, https; default "/"
	Service string    `json:"service,omitempty"` // grpc; default: the server as a whole

	Interval Duration `json:"interval,omitempty"` // default 10s
	Timeout  Duration `json:"timeout,omitempty"`  // default 1s, at most Interval
	// InitialDelay after which the first one is run. One below Interval is ignored, as in Kubernetes.
	InitialDelay Duration `json:"initial_delay,omitempty"`

	SuccessBeforePassing   int `json:"success_before_passing,omitempty"`   // default 1
	FailuresBeforeWarning  int `json:"failures_before_warning,omitempty"`  // 0 = never warning
	FailuresBeforeCritical int `json:"failures_before_critical,omitempty"` // default 3

	// DeregisterAfter is how long a liveness or startup check may be critical before the instance
	// is removed; 0 = for ever. No liveness check runs before startup passed: a program that dies
	// before that leaves by this, or by its TTL.
	DeregisterAfter Duration `json:"deregister_after,omitempty"`

	TTL Duration `json:"ttl,omitempty"` // ttl
}

// Active reports whether the region runs the check; a ttl check waits to be told.
func (c *Check) Active() bool { return c.Kind != CheckTTL }

// CheckPort is the name of a port or its number in decimal. JSON may give either.
type CheckPort string

// UnmarshalJSON reads a string or a number.
func (p *CheckPort) UnmarshalJSON(b []byte) error {
	var n int
	if json.Unmarshal(b, &n) == nil {
		*p = CheckPort(strconv.Itoa(n))
		return nil
	}
	return json.Unmarshal(b, (*string)(p))
}

// MarshalJSON writes a number as a number.
func (p CheckPort) MarshalJSON() ([]byte, error) {
	if n, err := strconv.Atoi(string(p)); err == nil {
		return json.Marshal(n)
	}
	return json.Marshal(string(p))
}

// CheckResult is what a check of an instance says. It carries a short code and nothing of
// what the instance answered.
type CheckResult struct {
	Name   string    `json:"name"`
	Role   CheckRole `json:"role"`
	Status Status    `json:"status"`
	Since  time.Time `json:"since"`          // of Status
	Note   string    `json:"note,omitempty"` // why it is not passing, such as "3 × 503"
	// LastCode is the outcome of the last run: a number for HTTP, a health status for gRPC,
	// else a word such as "ok", "refused" or "timeout".
	LastCode string    `json:"last_code,omitempty"`
	LastAt   time.Time `json:"last_at,omitzero"`
}

// SetStatus is a status that was set by PUT …/status for an instance with checks. The
// worse of it and the checks' verdict counts; draining always does.
type SetStatus struct {
	Status Status `json:"status"`
	Note   string `json:"note,omitempty"`
}

// Checked reports whether the instance has checks that the region runs.
func (i *Instance) Checked() bool { return anyActive(i.Checks) }

// Checked reports whether the registration has checks that the region runs.
func (r *Registration) Checked() bool { return anyActive(r.Checks) }

func anyActive(checks []Check) bool {
	for i := range checks {
		if checks[i].Active() {
			return true
		}
	}
	return false
}

// PortOf returns the number of the port that c asks at; 0 when the instance has none of
// that name.
func (i *Instance) PortOf(c *Check) int { return portOf(c.Port, i.Port, i.Ports) }

func portOf(p CheckPort, port int, ports map[string]int) int {
	if p == "" {
		return port
	}
	if n, ok := ports[string(p)]; ok {
		return n
	}
	n, err := strconv.Atoi(string(p))
	if err != nil || n < 1 || n > 65535 {
		return 0
	}
	return n
}

// ChecksInfo shows the checks that a node runs.
type ChecksInfo struct {
	Instances int            `json:"instances"` // with at least one
	Checks    int            `json:"checks"`
	Statuses  map[Status]int `json:"statuses"` // of checks
	// Suspended: most checks that passed began to fail at once, so the node suspects itself
	// and leaves every status that would become worse as it is.
	Suspended bool       `json:"suspended"`
	Since     *time.Time `json:"since,omitempty"`
	Suspects  int        `json:"suspects"` // checks that passed and fail now, as counted for this
	Passing   int        `json:"passing"`  // those that reported in the same time and pass
	Why       string     `json:"why"`
	// LagP99MS is how late checks began in the last minute.
	LagP99MS int64 `json:"lag_p99_ms"`
}
