package api

// BatchRegistration is one item of POST /v1/batch/register: which instance, and the body of
// its PUT.
type BatchRegistration struct {
	Namespace Namespace   `json:"ns,omitempty"` // "" = that of ?ns=, DefaultNamespace without it
	Service   ServiceName `json:"service"`
	ID        InstanceID  `json:"id"`
	Registration
}

// BatchHeartbeat is one item of POST /v1/batch/heartbeats.
type BatchHeartbeat struct {
	Namespace   Namespace   `json:"ns,omitempty"` // "" = that of ?ns=, DefaultNamespace without it
	Service     ServiceName `json:"service"`
	ID          InstanceID  `json:"id"`
	Incarnation uint64      `json:"incarnation,omitempty"` // 0 = is not compared
	Load        Load        `json:"load,omitzero"`         // see Heartbeat
}

// Batch is the body of POST /v1/batch/register (Instances) and of POST /v1/batch/heartbeats
// (Heartbeats): at most MaxBatchItems, within MaxBatchBytes.
type Batch struct {
	Instances  []BatchRegistration `json:"instances,omitempty"`
	Heartbeats []BatchHeartbeat    `json:"heartbeats,omitempty"`
}

// BatchResult is the outcome of one item: what the single request would have been answered.
type BatchResult struct {
	Namespace Namespace   `json:"ns,omitempty"` // told when it is not DefaultNamespace
	Service   ServiceName `json:"service"`
	ID        InstanceID  `json:"id"`
	OK        bool        `json:"ok"`
	Status    int         `json:"status"`            // HTTP status of the single request
	Created   bool        `json:"created,omitempty"` // the id was not registered before
	// Of an item that failed.
	Code        Code   `json:"code,omitempty"`
	Detail      string `json:"detail,omitempty"`
	Remedy      string `json:"remedy,omitempty"`
	Field       string `json:"field,omitempty"`
	Incarnation uint64 `json:"incarnation,omitempty"` // the stored one, with CodeStaleIncarnation
}

// Err returns the error of an item that failed, nil of one that did not.
func (r *BatchResult) Err() error {
	if r.OK {
		return nil
	}
	return &Error{Code: r.Code, Detail: r.Detail, Remedy: r.Remedy, Field: r.Field, Incarnation: r.Incarnation}
}

// BatchResults answers a batch; the results are in the order of the items.
type BatchResults struct {
	Results []BatchResult `json:"results"`
	Failed  int           `json:"failed"` // how many are not OK
}
