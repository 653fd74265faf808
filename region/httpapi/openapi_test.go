package httpapi

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"
	"go.yaml.in/yaml/v3"

	"github.com/nearside/nearside/sdk/api"
)

// openAPIDoc is openapi.yaml as far as the tests look at it.
type openAPIDoc struct {
	OpenAPI    string
	Info       struct{ Title, Version string }
	Paths      map[string]map[string]yaml.Node
	Components struct {
		Parameters map[string]parameter
		Responses  map[string]struct {
			Status int        `yaml:"x-status"`
			Codes  []api.Code `yaml:"x-codes"`
		}
		Examples map[string]struct{ Value any }
		Schemas  map[string]map[string]any
	}
}

type parameter struct {
	Ref      string `yaml:"$ref"`
	Name, In string
	Required bool
	Schema   map[string]any
}

type operation struct {
	ID          string `yaml:"operationId"`
	Summary     string
	Parameters  []parameter
	RequestBody *body `yaml:"requestBody"`
	Responses   map[string]struct {
		Ref     string `yaml:"$ref"`
		Content map[string]media
	}
}

type body struct {
	Required bool
	Content  map[string]media
}

type media struct {
	Schema   map[string]any
	Example  any
	Examples map[string]struct {
		Ref string `yaml:"$ref"`
	}
}

func readOpenAPI(t *testing.T) (doc openAPIDoc) {
	t.Helper()
	if err := yaml.Unmarshal(openAPIDocument, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// operations returns every operation, as "GET /v1/services", with the parameters that its
// path has for all.
func (doc *openAPIDoc) operations(t *testing.T) map[string]operation {
	t.Helper()
	ops := map[string]operation{}
	for path, item := range doc.Paths {
		var shared []parameter
		if node, ok := item["parameters"]; ok {
			if err := node.Decode(&shared); err != nil {
				t.Fatal(err)
			}
		}
		for method, node := range item {
			if method == "parameters" {
				continue
			}
			var op operation
			if err := node.Decode(&op); err != nil {
				t.Fatalf("%s %s: %v", method, path, err)
			}
			op.Parameters = append(op.Parameters, shared...)
			for i, p := range op.Parameters {
				if name, ok := strings.CutPrefix(p.Ref, "#/components/parameters/"); ok {
					op.Parameters[i] = doc.Components.Parameters[name]
				}
			}
			ops[strings.ToUpper(method)+" "+path] = op
		}
	}
	return ops
}

// documented returns the paths in the document of a route.
func documented(rt route) []string {
	switch {
	case rt.path == pathKVKey && rt.method == "GET": // one route, two answers
		return []string{api.PathKV, api.PathKV + "{key}"}
	case rt.path == pathKVKey:
		return []string{api.PathKV + "{key}"}
	}
	parts := strings.Split(rt.path, "/")
	for i, p := range parts {
		if name, ok := strings.CutPrefix(p, ":"); ok {
			parts[i] = "{" + name + "}"
		}
	}
	return []string{strings.Join(parts, "/")}
}

// Every route is in the document and everything in the document is a route, with the same
// parameters and with a body where one is read.
func TestOpenAPIHasEveryRoute(t *testing.T) {
	doc := readOpenAPI(t)
	if doc.OpenAPI != "3.1.0" || doc.Info.Title == "" || doc.Info.Version == "" {
		t.Errorf("openapi %q, %+v", doc.OpenAPI, doc.Info)
	}
	ops := doc.operations(t)
	h, _ := testDoor(t, newFake(), nil)
	served := map[string]bool{}
	for _, r := range h.(*echo.Echo).Routes() {
		if r.Method != echo.RouteNotFound {
			served[r.Method+" "+r.Path] = true
		}
	}
	left := maps.Clone(ops)
	for _, rt := range (&door{}).routes() {
		delete(served, rt.method+" "+rt.path)
		if rt.method == "GET" {
			delete(served, "HEAD "+rt.path)
		}
		var query []string
		for _, path := range documented(rt) {
			op, ok := ops[rt.method+" "+path]
			if !ok {
				t.Errorf("%s %s is not in openapi.yaml", rt.method, path)
				continue
			}
			delete(left, rt.method+" "+path)
			if rt.body != (op.RequestBody != nil) {
				t.Errorf("%s %s: reads a body: %v, documented: %v", rt.method, path, rt.body, op.RequestBody != nil)
			}
			for _, p := range op.Parameters {
				switch {
				case p.Name == "":
					t.Errorf("%s %s: a parameter without a name: %+v", rt.method, path, p)
				case p.In == "query":
					query = append(query, p.Name)
					if (p.Schema["type"] == "array") != slices.Contains(rt.repeat, p.Name) {
						t.Errorf("%s %s: whether %s may be given more than once differs", rt.method, path, p.Name)
					}
				case p.In == "path" && (!p.Required || !strings.Contains(path, "{"+p.Name+"}")):
					t.Errorf("%s %s: path parameter %s", rt.method, path, p.Name)
				}
			}
			if names := strings.Count(path, "{"); names != len(slices.DeleteFunc(slices.Clone(op.Parameters), func(p parameter) bool { return p.In != "path" })) {
				t.Errorf("%s %s: %d names in the path are not all described", rt.method, path, names)
			}
		}
		slices.Sort(query)
		known := slices.Sorted(slices.Values(rt.query))
		if got := slices.Compact(query); !slices.Equal(got, known) {
			t.Errorf("%s %s: parameters %v are documented, %v are read", rt.method, rt.path, got, known)
		}
	}
	for op := range left {
		t.Errorf("%s is in openapi.yaml and no route", op)
	}
	for r := range served {
		t.Errorf("%s is served and not in the table of routes", r)
	}
}

// The closed list of codes is the whole of what the document says, each with its status.
func TestOpenAPIHasEveryCode(t *testing.T) {
	doc := readOpenAPI(t)
	listed := map[api.Code]int{}
	for name, r := range doc.Components.Responses {
		for _, c := range r.Codes {
			if listed[c] != 0 {
				t.Errorf("code %s is listed twice", c)
			}
			listed[c] = r.Status
		}
		if len(r.Codes) == 0 {
			t.Errorf("response %s has no codes", name)
		}
	}
	if want := api.Codes(); !maps.Equal(listed, want) {
		t.Errorf("responses list\n%v\nthe codes are\n%v", listed, want)
	}
	var enum []api.Code
	for _, c := range doc.Components.Schemas["Code"]["enum"].([]any) {
		enum = append(enum, api.Code(c.(string)))
	}
	slices.Sort(enum)
	if want := slices.Sorted(maps.Keys(api.Codes())); !slices.Equal(enum, want) {
		t.Errorf("enum lists\n%v\nthe codes are\n%v", enum, want)
	}
}

// What may happen to a request of a kind is documented for each of the kind; a status is
// always that of its codes.
func TestOpenAPIStatuses(t *testing.T) {
	doc := readOpenAPI(t)
	ids := map[string]string{}
	for name, op := range doc.operations(t) {
		if other, taken := ids[op.ID]; taken || op.ID == "" || op.Summary == "" {
			t.Errorf("%s: operationId %q (also of %q), summary %q", name, op.ID, other, op.Summary)
		}
		ids[op.ID] = name
		want := []string{"403"}
		if strings.Contains(name, " /v1/") {
			want = append(want, "400", "401", "500", "503", "504")
		}
		if op.RequestBody != nil {
			want = append(want, "413", "415")
		}
		if len(op.Parameters) > 0 {
			want = append(want, "422")
		}
		for _, status := range want {
			if _, ok := op.Responses[status]; !ok {
				t.Errorf("%s does not document %s", name, status)
			}
		}
		for status, r := range op.Responses {
			if n, err := strconv.Atoi(status); err != nil || n < 300 || name == "GET /readyz" {
				continue
			}
			ref := strings.TrimPrefix(r.Ref, "#/components/responses/")
			if got := doc.Components.Responses[ref].Status; fmt.Sprint(got) != status {
				t.Errorf("%s: status %s refers to %q of status %d", name, status, r.Ref, got)
			}
		}
	}
}

// shapes are the Go types behind the schemas.
var shapes = map[string]any{
	"Problem": api.Problem{}, "Registration": api.Registration{}, "Check": api.Check{}, "Heartbeat": api.Heartbeat{},
	"HeartbeatAck": api.HeartbeatAck{}, "StatusChange": api.StatusChange{}, "Drain": api.Drain{}, "Instance": api.Instance{},
	"ServiceList": api.ServiceList{}, "ServiceRemoved": api.ServiceRemoved{}, "ServiceLoad": api.ServiceLoad{}, "ServiceCount": api.ServiceCount{}, "InstanceList": api.InstanceList{}, "Endpoint": api.Endpoint{},
	"Tier": api.Tier{}, "Decision": api.Decision{}, "Origin": api.Origin{}, "Resolution": api.Resolution{}, "Explanation": api.Explanation{},
	"WhatIf": api.WhatIf{}, "Loss": api.Loss{}, "EffectCounts": api.EffectCounts{}, "WhatIfRegion": api.WhatIfRegion{}, "WhatIfService": api.WhatIfService{}, "WhatIfAnswer": api.WhatIfAnswer{}, "WhatIfShare": api.WhatIfShare{},
	"Trace": api.Trace{}, "TraceStep": api.TraceStep{}, "TraceDrop": api.TraceDrop{}, "RegionList": api.RegionList{}, "RegionInfo": api.RegionInfo{},
	"MemberList": api.MemberList{}, "MemberAdd": api.MemberAdd{}, "EpochRaise": api.EpochRaise{}, "FollowInfo": api.FollowInfo{}, "EpochRaised": api.EpochRaised{}, "Member": api.Member{},
	"Protection": api.Protection{}, "FederationInfo": api.FederationInfo{}, "LinkInfo": api.LinkInfo{}, "ReaderInfo": api.ReaderInfo{},
	"RegionVerdict": api.RegionVerdict{}, "RegionWord": api.RegionWord{}, "PeerView": api.PeerView{}, "Canary": api.Canary{},
	"QuarantinedRow": api.QuarantinedRow{}, "ResyncInfo": api.ResyncInfo{}, "DuplicateRegion": api.DuplicateRegion{}, "Verification": api.Verification{}, "RowDifference": api.RowDifference{},
	"Summary": api.Summary{}, "ZoneCount": api.ZoneCount{}, "Version": api.Version{}, "Frame": api.Frame{}, "KVEntry": api.KVEntry{}, "Policy": api.Policy{}, "PolicyWrite": api.PolicyWrite{}, "PolicyRecord": api.PolicyRecord{}, "PolicyWritten": api.PolicyWritten{},
	"PolicyList": api.PolicyList{}, "PolicyTest": api.PolicyTest{}, "PolicyEffect": api.PolicyEffect{}, "DrainRequest": api.DrainRequest{}, "DrainAbort": api.DrainAbort{}, "RegionDrain": api.RegionDrain{},
	"Event": api.Event{}, "Batch": api.Batch{}, "BatchRegistration": api.BatchRegistration{}, "BatchHeartbeat": api.BatchHeartbeat{}, "BatchResult": api.BatchResult{}, "BatchResults": api.BatchResults{}, "CheckResult": api.CheckResult{}, "SetStatus": api.SetStatus{}, "ChecksInfo": api.ChecksInfo{}, "EventCause": api.EventCause{}, "EventList": api.EventList{},
	"KVList": api.KVList{}, "KVWritten": api.KVWritten{}, "TargetGroups": []targetGroup{}, "TargetGroup": targetGroup{}, "Limits": api.Limits{},
	"NodeReport": api.NodeReport{}, "NodeAnswer": api.NodeAnswer{}, "NodeCheck": api.NodeCheck{}, "NodeRefusal": api.NodeRefusal{}, "NodeOverlay": api.NodeOverlay{},
	"RecordRef": api.RecordRef{}, "NodeInfo": api.NodeInfo{}, "LivenessInfo": api.LivenessInfo{},
	"Livez": liveness{}, "Readiness": api.Readiness{}, "ReadinessCheck": api.ReadinessCheck{},
}

// words are schemas of plain strings.
var words = []string{"Label", "Duration", "Epoch", "Status", "Code", "Effect"}

// Every schema has the fields of its Go type, with their types, and requires only what is
// always told.
func TestOpenAPISchemasAreTheTypes(t *testing.T) {
	doc := readOpenAPI(t)
	for name, schema := range doc.Components.Schemas {
		if slices.Contains(words, name) {
			continue
		}
		shape, ok := shapes[name]
		if !ok {
			t.Errorf("schema %s has no Go type in this test", name)
			continue
		}
		typ := reflect.TypeOf(shape)
		if typ.Kind() != reflect.Struct {
			sameType(t, doc, name, schema, typ)
			continue
		}
		fields, always := jsonFields(typ)
		props, _ := schema["properties"].(map[string]any)
		for field, ft := range fields {
			prop, ok := props[field].(map[string]any)
			if !ok {
				t.Errorf("schema %s lacks %s", name, field)
				continue
			}
			sameType(t, doc, name+"."+field, prop, ft)
		}
		for prop := range props {
			if fields[prop] == nil {
				t.Errorf("schema %s has %s, which %s does not", name, prop, typ)
			}
		}
		required, _ := schema["required"].([]any)
		for _, r := range required {
			if !slices.Contains(always, fmt.Sprint(r)) {
				t.Errorf("schema %s requires %s, which may be left out", name, r)
			}
		}
	}
	for name := range shapes {
		if doc.Components.Schemas[name] == nil {
			t.Errorf("there is no schema %s", name)
		}
	}
}

// jsonFields returns the types of a struct's JSON fields, and those always written.
func jsonFields(typ reflect.Type) (fields map[string]reflect.Type, always []string) {
	fields = map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(typ) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || name == "-" || name == "" {
			continue
		}
		fields[name] = f.Type
		if !strings.Contains(options, "omit") {
			always = append(always, name)
		}
	}
	return fields, always
}

var textType = reflect.TypeFor[encoding.TextMarshaler]()

func sameType(t *testing.T, doc openAPIDoc, where string, schema map[string]any, typ reflect.Type) {
	t.Helper()
	if ref, ok := schema["$ref"].(string); ok {
		name := strings.TrimPrefix(ref, "#/components/schemas/")
		if shape, ok := shapes[name]; ok {
			for typ.Kind() == reflect.Pointer {
				typ = typ.Elem()
			}
			if reflect.TypeOf(shape) != typ {
				t.Errorf("%s is a %s, which is not a %s", where, name, typ)
			}
			return
		}
		schema = doc.Components.Schemas[name]
	}
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	want := ""
	switch {
	case typ.Implements(textType), typ == reflect.TypeFor[api.Duration](), typ == reflect.TypeFor[[]byte]():
		want = "string"
	case typ.Kind() == reflect.String:
		want = "string"
	case typ.Kind() == reflect.Bool:
		want = "boolean"
	case typ.Kind() == reflect.Float64:
		want = "number"
	case typ.Kind() == reflect.Slice:
		want = "array"
		if items, ok := schema["items"].(map[string]any); ok {
			sameType(t, doc, where+"[]", items, typ.Elem())
		}
	case typ.Kind() == reflect.Map:
		want = "object"
		if items, ok := schema["additionalProperties"].(map[string]any); ok {
			sameType(t, doc, where+"{}", items, typ.Elem())
		}
	case typ.Kind() >= reflect.Int && typ.Kind() <= reflect.Uint64:
		want = "integer"
	}
	if schema["type"] != want {
		t.Errorf("%s: type %v, want %q for %s", where, schema["type"], want, typ)
	}
}

// Every example is what it says: it decodes strictly into the type of its schema, and one of
// a registration registers. Every JSON body has one.
func TestOpenAPIExamplesDecodeStrictly(t *testing.T) {
	doc := readOpenAPI(t)
	n := 0
	for name, op := range doc.operations(t) {
		bodies := map[string]media{}
		if op.RequestBody != nil {
			bodies["request"] = op.RequestBody.Content["application/json"]
		}
		for status, r := range op.Responses {
			if m, ok := r.Content["application/json"]; ok {
				bodies[status] = m
			}
		}
		for where, m := range bodies {
			ref, _ := m.Schema["$ref"].(string)
			shape, ok := shapes[strings.TrimPrefix(ref, "#/components/schemas/")]
			if !ok {
				if where == "request" && name == "PUT /v1/kv/{key}" {
					continue // any bytes
				}
				t.Errorf("%s %s: no schema of ours: %v", name, where, m.Schema)
				continue
			}
			example := m.Example
			for _, e := range m.Examples {
				example = doc.Components.Examples[strings.TrimPrefix(e.Ref, "#/components/examples/")].Value
			}
			text, err := json.Marshal(example)
			if err != nil || example == nil {
				t.Errorf("%s %s: example %v %v", name, where, example, err)
				continue
			}
			into := reflect.New(reflect.TypeOf(shape))
			if err := api.DecodeStrict(bytes.NewReader(text), into.Interface()); err != nil {
				t.Errorf("%s %s: the example does not decode: %v: %s", name, where, err, text)
				continue
			}
			if reg, ok := into.Elem().Interface().(api.Registration); ok {
				if _, err := reg.Normalize(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			n++
		}
	}
	if n < 25 {
		t.Errorf("only %d examples", n)
	}
}

// Every reference leads somewhere, and nothing lies about unused.
func TestOpenAPIReferences(t *testing.T) {
	doc := readOpenAPI(t)
	used := map[string]bool{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				used[ref] = true
			}
			for _, x := range v {
				walk(x)
			}
		case []any:
			for _, x := range v {
				walk(x)
			}
		}
	}
	var whole map[string]any
	if err := yaml.Unmarshal(openAPIDocument, &whole); err != nil {
		t.Fatal(err)
	}
	walk(whole)
	used["#/components/responses/MethodNotAllowed"] = true // of every path
	have := map[string]bool{}
	for kind, part := range whole["components"].(map[string]any) {
		if kind == "securitySchemes" {
			continue
		}
		for name := range part.(map[string]any) {
			have["#/components/"+kind+"/"+name] = true
		}
	}
	for ref := range used {
		if !have[ref] {
			t.Errorf("%s leads nowhere", ref)
		}
	}
	for ref := range have {
		if !used[ref] {
			t.Errorf("%s is not used", ref)
		}
	}
	if len(doc.Paths) < 20 {
		t.Errorf("only %d paths", len(doc.Paths))
	}
}

func TestOpenAPIIsServed(t *testing.T) {
	h, _ := testDoor(t, newFake(), nil)
	w := raw{"GET", "/v1/openapi.yaml", "", ""}.do(t, h)
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/yaml" || !bytes.Equal(w.Body.Bytes(), openAPIDocument) {
		t.Errorf("%d %v, %d bytes", w.Code, w.Header(), w.Body.Len())
	}
}
