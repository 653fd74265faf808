package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/nearside/nearside/sdk/api"
)

// batchWorkers register the items of one batch at the same time: as many as fit into one
// commit of the store.
const batchWorkers = 128

// commasPerItem is more than instances have on the average.
const commasPerItem = 64

// batchRegister registers many instances. One that is refused does not hinder the others;
// each passes the same checks, authorization among them, as if it had come alone.
func (d *door) batchRegister(ctx context.Context, r *request) (answer, error) {
	ns := r.namespace() // of the items that name none
	if r.err != nil {
		return answer{}, r.err
	}
	body, err := r.batchBody()
	if err != nil {
		return answer{}, err
	}
	items, bad, err := decodeBatch[api.BatchRegistration](body, "instances")
	if err != nil {
		return answer{}, err
	}
	results := make([]api.BatchResult, len(items))
	seen := make(map[api.InstanceKey]struct{}, len(items))
	todo := make(chan int)
	var wg sync.WaitGroup
	for range min(batchWorkers, len(items)) {
		wg.Go(func() {
			for i := range todo {
				it := &items[i]
				created, err := d.registerItem(ctx, it)
				results[i] = d.result(it.Namespace, it.Service, it.ID, err)
				if err == nil && created {
					results[i].Created, results[i].Status = true, http.StatusCreated
				}
			}
		})
	}
	for i := range items {
		it := &items[i]
		key := keyOf(&it.Namespace, ns, it.Service, it.ID)
		_, twice := seen[key]
		seen[key] = struct{}{}
		switch {
		case bad[i] != nil:
			results[i] = d.result(it.Namespace, it.Service, it.ID, bad[i])
		case twice:
			// Which of the two should stand in the end?
			results[i] = d.result(it.Namespace, it.Service, it.ID,
				api.FieldError("id", "the instance is in this batch already", "say it once"))
		default:
			todo <- i
		}
	}
	close(todo)
	wg.Wait()
	return d.batchAnswer(results)
}

// registerItem is Register with a panic turned into an error: it runs beside the request's
// own goroutine, where nobody else would.
func (d *door) registerItem(ctx context.Context, it *api.BatchRegistration) (created bool, err error) {
	defer func() {
		if v := recover(); v != nil {
			d.Logger.Error("panic in a batch", "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	_, created, err = d.Registry.Register(ctx, api.InstanceKey{Namespace: it.Namespace, Service: it.Service, ID: it.ID}, it.Registration)
	return created, err
}

// batchHeartbeats takes signs of life of many instances.
func (d *door) batchHeartbeats(ctx context.Context, r *request) (answer, error) {
	ns := r.namespace() // of the items that name none
	if r.err != nil {
		return answer{}, r.err
	}
	body, err := r.batchBody()
	if err != nil {
		return answer{}, err
	}
	var bad map[int]error
	items, plain := quickHeartbeats(body)
	if !plain || len(items) > api.MaxBatchItems {
		if items, bad, err = decodeBatch[api.BatchHeartbeat](body, "heartbeats"); err != nil {
			return answer{}, err
		}
	}
	results := make([]api.BatchResult, len(items))
	for i := range items {
		keyOf(&items[i].Namespace, ns, items[i].Service, items[i].ID)
	}
	good, at := items, []int(nil)
	if len(bad) > 0 {
		good = make([]api.BatchHeartbeat, 0, len(items))
		for i := range items {
			if bad[i] == nil {
				good, at = append(good, items[i]), append(at, i)
			}
		}
	}
	errs := d.Registry.Heartbeats(ctx, good)
	for i := range items {
		results[i] = d.result(items[i].Namespace, items[i].Service, items[i].ID, bad[i])
	}
	for k, err := range errs {
		i := k
		if at != nil {
			i = at[k]
		}
		if err != nil {
			results[i] = d.result(items[i].Namespace, items[i].Service, items[i].ID, err)
		}
	}
	return d.batchAnswer(results)
}

// keyOf returns the key of an item, whose namespace it fills in when it names none.
func keyOf(ns *api.Namespace, otherwise api.Namespace, service api.ServiceName, id api.InstanceID) api.InstanceKey {
	if *ns == "" {
		*ns = otherwise
	}
	return api.InstanceKey{Namespace: *ns, Service: service, ID: id}
}

// batchBody reads the body, which may be larger than that of other requests.
func (r *request) batchBody() ([]byte, error) {
	if err := r.checkMedia(api.MaxBatchBytes); err != nil {
		return nil, err
	}
	return api.ReadBody(r.Body, api.MaxBatchBytes)
}

// decodeBatch reads {"field":[items]}. An item that cannot be read leaves its error in bad,
// by its place; what can be read of it names it in the answer.
func decodeBatch[T any](body []byte, field string) (items []T, bad map[int]error, err error) {
	// Many more commas than a batch needs may be many more items than it may have, each of which
	// costs a hundred times its bytes to read: they are counted first.
	if bytes.Count(body, []byte{','}) <= commasPerItem*api.MaxBatchItems {
		if items, ok := decodeWell[T](body, field); ok {
			return items, nil, checkBatch(len(items), field)
		}
	}
	// Something is wrong: with the whole, or with some items?
	var fields map[string]json.RawMessage
	if err := api.UnmarshalStrict(body, &fields); err != nil {
		return nil, nil, err
	}
	for name := range fields {
		if name != field {
			return nil, nil, &api.Error{
				Code: api.CodeUnknownField, Field: cut(name), Detail: "there is no field " + api.Quote(name), Remedy: "send {" + api.Quote(field) + ":[…]}",
			}
		}
	}
	var list []json.RawMessage
	if err := json.Unmarshal(fields[field], &list); err != nil || list == nil {
		return nil, nil, api.FieldError(field, field+" is missing or not a list", "send {"+api.Quote(field)+":[…]}")
	}
	if err := checkBatch(len(list), field); err != nil {
		return nil, nil, err
	}
	items, bad = make([]T, len(list)), make(map[int]error)
	for i, one := range list {
		if err := api.UnmarshalStrict(one, &items[i]); err != nil {
			bad[i] = flat(err)
		}
	}
	return items, bad, nil
}

// flat gives a field of an embedded struct the name that it has in JSON.
func flat(err error) error {
	var e *api.Error
	const embedded = "Registration."
	if errors.As(err, &e) && strings.HasPrefix(e.Field, embedded) {
		e.Field, e.Detail = strings.TrimPrefix(e.Field, embedded), strings.TrimPrefix(e.Detail, embedded)
	}
	return err
}

// decodeWell reads a batch that has no fault in one go, which takes half the time.
func decodeWell[T any](body []byte, field string) ([]T, bool) {
	var b struct {
		Instances  []T `json:"instances"`
		Heartbeats []T `json:"heartbeats"`
	}
	if api.UnmarshalStrict(body, &b) != nil {
		return nil, false
	}
	switch {
	case field == "instances" && b.Instances != nil && b.Heartbeats == nil:
		return b.Instances, true
	case field == "heartbeats" && b.Heartbeats != nil && b.Instances == nil:
		return b.Heartbeats, true
	}
	return nil, false
}

func checkBatch(n int, field string) error {
	if n <= api.MaxBatchItems {
		return nil
	}
	return api.FieldError(field, fmt.Sprintf("%s has %d items", field, n), fmt.Sprintf("send at most %d at once", api.MaxBatchItems))
}

// result is the outcome of one item.
func (d *door) result(ns api.Namespace, service api.ServiceName, id api.InstanceID, err error) api.BatchResult {
	if ns == api.DefaultNamespace {
		ns = ""
	}
	if err == nil {
		return api.BatchResult{Namespace: ns, Service: service, ID: id, OK: true, Status: http.StatusOK}
	}
	e := d.asError(err)
	return api.BatchResult{
		Namespace: api.Namespace(cut(string(ns))), Service: api.ServiceName(cut(string(service))), ID: api.InstanceID(cut(string(id))),
		Status: e.Code.HTTPStatus(), Code: e.Code, Detail: e.Detail, Remedy: e.Remedy, Field: e.Field, Incarnation: e.Incarnation,
	}
}

// cut shortens a stranger's text; every valid name passes unchanged.
func cut(s string) string {
	if len(s) <= api.MaxInstanceIDLength {
		return s
	}
	return s[:api.MaxInstanceIDLength]
}

// batchAnswer answers with what became of the items. When all are refused because nobody
// knows the caller, the whole request is: the token is the request's. The same when the node has
// no catalogue yet.
func (d *door) batchAnswer(results []api.BatchResult) (answer, error) {
	out := api.BatchResults{Results: results}
	strangers := 0
	for i := range results {
		if !results[i].OK {
			out.Failed++
		}
		if results[i].Code == api.CodeUnauthorized {
			strangers++
		}
	}
	if strangers > 0 && strangers == len(results) {
		return answer{}, results[0].Err()
	}
	st := d.Registry.Stamp()
	if st.Version.Epoch.IsZero() && out.Failed == len(results) {
		// Nothing is loaded yet, so there is no version that a success could name.
		for i := range results {
			if results[i].Code == api.CodeUnavailable {
				return answer{}, results[i].Err()
			}
		}
	}
	return answer{body: resultsBody{&out}, stamp: st}, nil
}
