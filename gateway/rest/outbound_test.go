package rest

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"

	"sluice/gateway/schema"
	"sluice/gateway/wire"
)

// outboundSource has a method for each way in which a message becomes a request.
const outboundSource = `syntax = "proto3";
package out.v1;
import "google/api/annotations.proto";
import "google/api/httpbody.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
service Out {
  rpc Get(M) returns (M) { option (google.api.http) = {get: "/v1/things/{name}"}; }
  rpc Deep(M) returns (M) { option (google.api.http) = {get: "/v1/{name=shelves/*/books/*}:read"}; }
  rpc Rest(M) returns (M) { option (google.api.http) = {get: "/v1/files/{name=**}"}; }
  rpc Tail(M) returns (M) { option (google.api.http) = {get: "/v1/{name=a/**}"}; }
  rpc Nested(M) returns (M) { option (google.api.http) = {put: "/v1/{sub.name}/{number}" body: "sub"}; }
  rpc Whole(M) returns (M) { option (google.api.http) = {post: "/v1/things/{sub.name}" body: "*"}; }
  rpc List(M) returns (M) { option (google.api.http) = {post: "/v1/lists" body: "names" response_body: "names"}; }
  rpc Scalar(M) returns (M) { option (google.api.http) = {post: "/v1/scalar" body: "number" response_body: "sub"}; }
  rpc Kinds(M) returns (M) { option (google.api.http) = {get: "/v1/{kind}/{flag}/{blob}/{at}/{ratio}/{wrapped}"}; }
  rpc Any(M) returns (M) { option (google.api.http) = {custom {kind: "*" path: "/v1/any"} body: "*"}; }
  rpc AnyGet(M) returns (M) { option (google.api.http) = {custom {kind: "*" path: "/v1/any"}}; }
  rpc Literal(M) returns (M) { option (google.api.http) = {get: "/v1/a%20b/{name=fixed}"}; }
  rpc Second(M) returns (M) { option (google.api.http) = {get: "/v1/first" additional_bindings {get: "/v1/second"}}; }
  rpc Upload(google.api.HttpBody) returns (google.api.HttpBody) { option (google.api.http) = {post: "/v1/raw" body: "*"}; }
  rpc Field(Raw) returns (Raw) { option (google.api.http) = {put: "/v1/raw/{name}" body: "raw" response_body: "raw"}; }
  rpc Plain(M) returns (M);
  rpc Stream(stream M) returns (M) { option (google.api.http) = {post: "/v1/stream" body: "*"}; }
  rpc Watch(M) returns (stream M) { option (google.api.http) = {get: "/v1/watch"}; }
  rpc Star(M) returns (M) { option (google.api.http) = {get: "/v1/*/x"}; }
}
enum Kind { KIND_UNSPECIFIED = 0; KIND_BIG = 1; }
message Sub { string name = 1; int64 size = 2; Sub sub = 3; repeated string tags = 4; }
message Raw { string name = 1; google.api.HttpBody raw = 2; string note = 3; }
message M {
  string name = 1;
  int64 number = 2;
  Sub sub = 3;
  repeated string names = 4;
  Kind kind = 5;
  bool flag = 6;
  bytes blob = 7;
  google.protobuf.Timestamp at = 8;
  double ratio = 9;
  google.protobuf.StringValue wrapped = 10;
  optional string maybe = 11;
  map<string, string> labels = 12;
  repeated Sub subs = 13;
  google.protobuf.Struct anything = 14;
  google.protobuf.FieldMask mask = 15;
  google.protobuf.Duration took = 16;
  string long_name = 17;
  repeated Kind kinds = 18;
  oneof choice { string left = 19; uint32 right = 20; }
}
`

func outboundMethods(t testing.TB) map[string]*schema.Method {
	t.Helper()
	methods := map[string]*schema.Method{}
	for _, m := range compileMethods(t, "out.proto", outboundSource) {
		methods[string(m.Descriptor.Name())] = m
	}
	return methods
}

func mustOutbound(t testing.TB, m *schema.Method) *Outbound {
	t.Helper()
	o, err := NewOutbound(m)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// encodedAs is a message of the method's input, or output, that a text in JSON means.
func encodedAs(t testing.TB, m *schema.Method, text string, output bool) []byte {
	t.Helper()
	d := m.Descriptor.Input()
	if output {
		d = m.Descriptor.Output()
	}
	msg := dynamicpb.NewMessage(d)
	if err := (protojson.UnmarshalOptions{Resolver: m.Schema}).Unmarshal([]byte(text), msg); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	data, err := proto.Marshal(msg)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestOutboundWritesRequests(t *testing.T) {
	methods := outboundMethods(t)
	tests := []struct {
		method, message string
		want            string // "VERB target [content type] [body]", or the error
	}{
		{"Get", `{"name": "x"}`, "GET /v1/things/x"},
		{"Get", `{"name": "a/b c?d#e%f:g;h+i&j=k"}`, "GET /v1/things/a%2Fb%20c%3Fd%23e%25f%3Ag%3Bh%2Bi%26j%3Dk"},
		{"Get", `{"name": "größe-._~"}`, "GET /v1/things/gr%C3%B6%C3%9Fe-._~"},
		{"Get", `{}`, `INVALID_ARGUMENT: field "name", which the path has: is empty`},
		{"Get", `{"name": ".."}`, "INVALID_ARGUMENT: it has a segment"},
		{"Get", `{"name": "a/../b"}`, "INVALID_ARGUMENT: it has a segment"},
		{"Get", `{"name": "a\u0000b"}`, "INVALID_ARGUMENT: control character"},
		{"Get", `{"name": "x", "number": "-9007199254740993", "maybe": "", "flag": true}`, "GET /v1/things/x?number=-9007199254740993&flag=true&maybe="},
		{
			"Get", `{"name": "x", "sub": {"name": "n&=", "sub": {"size": "1", "tags": ["a b", "c"]}}, "longName": "l"}`,
			"GET /v1/things/x?sub.name=n%26%3D&sub.sub.size=1&sub.sub.tags=a+b&sub.sub.tags=c&longName=l",
		},
		{
			"Get", `{"name": "x", "kind": "KIND_BIG", "kinds": ["KIND_BIG", 7], "blob": "+/8=", "at": "2026-01-02T03:04:05.6Z", "took": "1.5s", "mask": "a,bC", "wrapped": "w", "ratio": "NaN"}`,
			"GET /v1/things/x?kind=KIND_BIG&blob=-_8%3D&at=2026-01-02T03%3A04%3A05.600Z&ratio=NaN&wrapped=w&mask=a%2CbC&took=1.500s&kinds=KIND_BIG&kinds=7",
		},
		{"Get", `{"name": "x", "right": 0}`, "GET /v1/things/x?right=0"},
		{"Get", `{"name": "x", "labels": {"a": "b"}}`, `INVALID_ARGUMENT: field "labels": a map`},
		{"Get", `{"name": "x", "subs": [{}]}`, `INVALID_ARGUMENT: field "subs": a list of messages`},
		{"Get", `{"name": "x", "anything": {"a": 1}}`, `INVALID_ARGUMENT: field "anything": a google.protobuf.Struct`},
		{"Get", `{"name": "x", "maybe": "` + strings.Repeat("m", maxTarget) + `"}`, "INVALID_ARGUMENT: more than 32768 bytes"},
		{"Get", `{"name": "` + strings.Repeat("m", maxTarget) + `"}`, "INVALID_ARGUMENT: limit 32768"},
		{"Deep", `{"name": "shelves/a b/books/c:d"}`, "GET /v1/shelves/a%20b/books/c%3Ad:read"},
		{"Deep", `{"name": "shelves/a%2Fb/books/c%d"}`, "GET /v1/shelves/a%2Fb/books/c%25d:read"},
		{"Deep", `{"name": "shelves/a/books"}`, "INVALID_ARGUMENT: want the form shelves/*/books/*"},
		{"Deep", `{"name": "shelves/a/books/b/c"}`, "INVALID_ARGUMENT: want the form shelves/*/books/*"},
		{"Deep", `{"name": "shelves//books/b"}`, "INVALID_ARGUMENT: want the form shelves/*/books/*"},
		{"Deep", `{"name": "racks/a/books/b"}`, "INVALID_ARGUMENT: want the form shelves/*/books/*"},
		{"Rest", `{"name": "a/b/c"}`, "GET /v1/files/a/b/c"},
		{"Rest", `{}`, "GET /v1/files"},
		{"Rest", `{"name": "a/"}`, "INVALID_ARGUMENT: want the form **"},
		{"Tail", `{"name": "a"}`, "GET /v1/a"},
		{"Tail", `{"name": "a/b/c"}`, "GET /v1/a/b/c"},
		{"Tail", `{"name": ""}`, "INVALID_ARGUMENT: want the form a/**"},
		{"Nested", `{"name": "n", "number": "7", "sub": {"name": "s", "size": "1"}}`, `PUT /v1/s/7?name=n application/json {"name":"s","size":"1"}`},
		{"Nested", `{"number": "7"}`, `INVALID_ARGUMENT: field "sub.name"`},
		{"Whole", `{"name": "n", "labels": {"a": "b"}, "sub": {"name": "s", "size": "1"}}`, `POST /v1/things/s application/json {"name":"n","sub":{"size":"1"},"labels":{"a":"b"}}`},
		{"List", `{"names": ["a", "b"], "name": "n"}`, `POST /v1/lists?name=n application/json ["a","b"]`},
		{"List", `{}`, `POST /v1/lists application/json []`},
		{"Scalar", `{"number": "5"}`, `POST /v1/scalar application/json "5"`},
		{"Scalar", `{}`, `POST /v1/scalar application/json "0"`},
		{"Kinds", `{"kind": "KIND_BIG", "flag": true, "blob": "+/8=", "at": "2026-01-02T03:04:05Z", "ratio": 1e300, "wrapped": "w"}`, "GET /v1/KIND_BIG/true/-_8%3D/2026-01-02T03%3A04%3A05Z/1e%2B300/w"},
		{"Kinds", `{"kind": 9, "blob": "AA==", "at": "1970-01-01T00:00:00Z", "ratio": "-Infinity", "wrapped": "w"}`, "GET /v1/9/false/AA%3D%3D/1970-01-01T00%3A00%3A00Z/-Infinity/w"},
		{"Any", `{"name": "n"}`, `POST /v1/any application/json {"name":"n"}`},
		{"AnyGet", `{"name": "n"}`, `GET /v1/any?name=n`},
		{"Literal", `{"name": "fixed"}`, "GET /v1/a%20b/fixed"},
		{"Literal", `{"name": "other"}`, `INVALID_ARGUMENT: want "fixed"`},
		{"Second", `{}`, "GET /v1/first"},
		{"Upload", `{"contentType": "image/png", "data": "AAEC"}`, "POST /v1/raw image/png \x00\x01\x02"},
		{"Upload", `{}`, "POST /v1/raw application/octet-stream "},
		{"Field", `{"name": "n", "note": "x", "raw": {"contentType": "text/csv", "data": "YSxi"}}`, "PUT /v1/raw/n?note=x text/csv a,b"},
	}
	for _, tt := range tests {
		m := methods[tt.method]
		got := requestText(mustOutbound(t, m).request(encodedAs(t, m, tt.message, false), "rest.example.com", http.Header{}))
		if code, part, failed := strings.Cut(tt.want, ": "); failed {
			if !strings.HasPrefix(got, code+": sluice: ") || !strings.Contains(got, part) {
				t.Errorf("%s %.80s: got %q, want %s", tt.method, tt.message, got, tt.want)
			}
		} else if got != tt.want {
			t.Errorf("%s %.80s: got %q, want %q", tt.method, tt.message, got, tt.want)
		}
	}
}

// requestText is a request on one line. JSON may have spaces, which are no part of it.
func requestText(r *http.Request, st *wire.Status) string {
	if st != nil {
		return st.Error()
	}
	text := r.Method + " " + r.URL.RequestURI()
	if r.Header.Get("Content-Type") == "" {
		return text
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err.Error()
	}
	if r.ContentLength != int64(len(body)) {
		return fmt.Sprintf("%d bytes, said %d", len(body), r.ContentLength)
	}
	var compact bytes.Buffer
	if r.Header.Get("Content-Type") == "application/json" && json.Compact(&compact, body) == nil {
		body = compact.Bytes()
	}
	return text + " " + r.Header.Get("Content-Type") + " " + string(body)
}

func TestOutboundRefusesMethodsThatAreNoRequests(t *testing.T) {
	methods := outboundMethods(t)
	for name, part := range map[string]string{
		"Plain": "no google.api.http annotation", "Stream": "it streams", "Watch": "it streams", "Star": `a "*" that is no field's`,
	} {
		_, err := NewOutbound(methods[name])
		st, ok := errors.AsType[*wire.Status](err)
		if !ok || st.Code != wire.Unimplemented || !strings.Contains(st.Message, part) || !strings.HasPrefix(st.Message, "sluice: ") {
			t.Errorf("%s: %v, want UNIMPLEMENTED with %q", name, err, part)
		}
	}
}

// restBackend answers with what a test says, and remembers what it was asked.
type restBackend struct {
	status int
	header http.Header
	body   string
	err    error
	asked  []*http.Request
}

func (b *restBackend) send(r *http.Request) (*http.Response, error) {
	b.asked = append(b.asked, r)
	if b.err != nil {
		return nil, b.err
	}
	header := b.header.Clone()
	if header == nil {
		header = http.Header{"Content-Type": {"application/json"}}
	}
	return &http.Response{StatusCode: b.status, Header: header, Body: io.NopCloser(strings.NewReader(b.body)), ContentLength: -1}, nil
}

// outcomes is how calls of a test have ended.
type outcomes struct{ statuses []string }

func (e *outcomes) note(st *wire.Status) {
	if st == nil {
		e.statuses = append(e.statuses, "OK")
		return
	}
	e.statuses = append(e.statuses, st.Code.String())
}

func (b *restBackend) opening(e *outcomes) OutboundOpening {
	return OutboundOpening{
		Context: context.Background(), Backend: "default/rest", Host: "rest.example.com",
		Metadata: http.Header{"X-Tenant": {"t"}, "x-request-id": {"7"}, "Grpc-Timeout": {"1S"}, "Te": {"trailers"}, "Content-Type": {"application/grpc"}}, Limits: Limits{MaxMessage: 1 << 10}, Send: b.send, End: e.note,
	}
}

func TestOutboundReadsAnswers(t *testing.T) {
	methods := outboundMethods(t)
	gzipped := func(s string) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write([]byte(s))
		z.Close()
		return b.String()
	}
	kind := func(contentType string, more ...string) http.Header {
		h := http.Header{}
		if contentType != "" {
			h.Set("Content-Type", contentType)
		}
		for i := 0; i < len(more); i += 2 {
			h.Set(more[i], more[i+1])
		}
		return h
	}
	tests := []struct {
		name, method string
		header       http.Header
		body         string
		want         string // message in JSON, or "CODE: part"
	}{
		{"a message", "Get", nil, `{"name": "n", "number": 5}`, `{"name":"n","number":"5"}`},
		{"fields that are not known", "Get", nil, `{"name": "n", "new": {"x": [1]}}`, `{"name":"n"}`},
		{"nothing", "Get", kind(""), "", `{}`},
		{"nothing but space", "Get", kind("text/html"), " \n", `{}`},
		{"without a content type", "Get", kind(""), `{"name": "n"}`, `{"name":"n"}`},
		{"JSON of another name", "Get", kind("application/hal+json; charset=utf-8"), `{"name": "n"}`, `{"name":"n"}`},
		{"a page", "Get", kind("text/html"), "<html>", `INTERNAL: Content-Type "text/html"`},
		{"no JSON", "Get", nil, "{", "INTERNAL: the backend's answer"},
		{"another type", "Get", nil, `{"number": "x"}`, "INTERNAL: the backend's answer"},
		{"too much", "Get", nil, `{"name": "` + strings.Repeat("x", 1<<10) + `"}`, "RESOURCE_EXHAUSTED: more than 1024 bytes"},
		{"compressed", "Get", kind("application/json", "Content-Encoding", "gzip"), gzipped(`{"name": "n"}`), `{"name":"n"}`},
		{"a compressed bomb", "Get", kind("application/json", "Content-Encoding", "gzip"), gzipped(strings.Repeat(" ", 1<<20)), "RESOURCE_EXHAUSTED: more than 1024 bytes"},
		{"compressed in another way", "Get", kind("application/json", "Content-Encoding", "br"), "x", `INTERNAL: Content-Encoding "br"`},
		{"no gzip", "Get", kind("application/json", "Content-Encoding", "gzip"), "x", "INTERNAL: not what gzip"},
		{"a list as the answer", "List", nil, `["a", "b"]`, `{"names":["a","b"]}`},
		{"a message as the answer", "Scalar", nil, `{"name": "s"}`, `{"sub":{"name":"s"}}`},
		{"null as the answer", "Scalar", nil, `null`, `{}`},
		{"two values as the answer", "Scalar", nil, `{}, "name": "y"`, "INTERNAL: no JSON"},
		{"a body of its own", "Upload", kind("image/png"), "\x00\x01", `{"contentType":"image/png","data":"AAE="}`},
		{"a body of its own in a field", "Field", kind("text/csv"), "a,b", `{"raw":{"contentType":"text/csv","data":"YSxi"}}`},
		{"an empty body of its own", "Upload", kind(""), "", `{}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, e := methods[tt.method], &outcomes{}
			b := &restBackend{status: 200, header: tt.header, body: tt.body}
			c := mustOutbound(t, m).Open(b.opening(e))
			defer c.Close()
			message := `{}`
			switch tt.method {
			case "Get":
				message = `{"name": "x"}`
			case "Field":
				message = `{"name": "x", "raw": {}}`
			}
			if err := c.Send(Message{Data: encodedAs(t, m, message, false)}, true); err != nil {
				t.Fatal(err)
			}
			got, err := c.Receive()
			if code, part, failed := strings.Cut(tt.want, ": "); failed && !strings.HasPrefix(tt.want, "{") {
				if err == nil || !strings.HasPrefix(err.Error(), code+": sluice: ") || !strings.Contains(err.Error(), part) {
					t.Errorf("error %v, want %s", err, tt.want)
				}
				if len(e.statuses) != 1 || e.statuses[0] != code {
					t.Errorf("ended with %v", e.statuses)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := encodedAs(t, m, tt.want, true)
			if !sameMessage(t, m, got.Data, want) {
				t.Errorf("message %q, want %q", got.Data, want)
			}
			if _, err := c.Receive(); err != io.EOF {
				t.Errorf("after the message: %v, want io.EOF", err)
			}
			if len(e.statuses) != 1 || e.statuses[0] != "OK" {
				t.Errorf("ended with %v", e.statuses)
			}
		})
	}
}

func sameMessage(t testing.TB, m *schema.Method, a, b []byte) bool {
	t.Helper()
	x, y := dynamicpb.NewMessage(m.Descriptor.Output()), dynamicpb.NewMessage(m.Descriptor.Output())
	if err := errors.Join(proto.Unmarshal(a, x), proto.Unmarshal(b, y)); err != nil {
		t.Fatal(err)
	}
	return proto.Equal(x, y)
}

func TestOutboundPassesMetadata(t *testing.T) {
	m, e := outboundMethods(t)["Get"], &outcomes{}
	b := &restBackend{status: 200, body: "{}", header: http.Header{
		"Content-Type": {"application/json"}, "X-Served-By": {"a", "b"}, "Connection": {"close"}, "Content-Length": {"2"}, "Grpc-Status": {"0"},
	}}
	c := mustOutbound(t, m).Open(b.opening(e))
	defer c.Close()
	if c.Backend() != "default/rest" || c.Limits().MaxMessage != 1<<10 || c.Encoding() != "" {
		t.Error("what was opened is not what the call tells")
	}
	if err := c.Send(Message{Data: encodedAs(t, m, `{"name": "x"}`, false)}, true); err != nil {
		t.Fatal(err)
	}
	header, err := c.Header()
	if err != nil || fmt.Sprint(header) != "map[X-Served-By:[a b]]" {
		t.Errorf("header %v, %v", header, err)
	}
	r := b.asked[0]
	if r.Host != "rest.example.com" || r.Header.Get("X-Tenant") != "t" || r.Header.Get("X-Request-Id") != "7" || len(r.Header) != 4 || r.Header.Get("Accept") != "application/json" || r.Header.Get("Accept-Encoding") != "identity" {
		t.Errorf("request with host %q and header %v", r.Host, r.Header)
	}
}

func TestOutboundTurnsHTTPErrorsIntoCodes(t *testing.T) {
	tests := []struct {
		status     int
		body, kind string
		code       wire.Code
		message    string
	}{
		{400, "", "", wire.InvalidArgument, "sluice: the backend answered HTTP 400 Bad Request"},
		{401, "", "", wire.Unauthenticated, "sluice: the backend answered HTTP 401 Unauthorized"},
		{403, "", "", wire.PermissionDenied, ""},
		{404, "<html>", "text/html", wire.NotFound, "sluice: the backend answered HTTP 404 Not Found"},
		{405, "", "", wire.Unimplemented, ""},
		{408, "", "", wire.DeadlineExceeded, ""},
		{409, "", "", wire.Aborted, ""},
		{410, "", "", wire.NotFound, ""},
		{412, "", "", wire.FailedPrecondition, ""},
		{413, "", "", wire.ResourceExhausted, ""},
		{416, "", "", wire.OutOfRange, ""},
		{418, "", "", wire.FailedPrecondition, ""},
		{422, "", "", wire.InvalidArgument, ""},
		{428, "", "", wire.FailedPrecondition, ""},
		{429, "", "", wire.ResourceExhausted, ""},
		{499, "", "", wire.Canceled, "sluice: the backend answered HTTP 499"},
		{500, "", "", wire.Internal, ""},
		{501, "", "", wire.Unimplemented, ""},
		{502, "", "", wire.Unavailable, ""},
		{503, "", "", wire.Unavailable, ""},
		{504, "", "", wire.DeadlineExceeded, ""},
		{599, "", "", wire.Internal, ""},
		{302, "", "", wire.Unknown, ""},
		{304, "", "", wire.Unknown, ""},
		{404, `{"code": 5, "message": "no such thing"}`, "application/json", wire.NotFound, "no such thing"},
		{400, `{"code": 9, "message": "m"}`, "application/json", wire.FailedPrecondition, "m"},
		{400, `{"code": 99, "message": "m"}`, "application/json", wire.InvalidArgument, "m"},
		{500, `{"code": 0, "message": "m"}`, "application/json", wire.Internal, "m"},
		{500, `{"code": -1, "message": 7}`, "application/json", wire.Internal, "sluice: the backend answered HTTP 500 Internal Server Error"},
		{409, `{"error": {"code": 409, "status": "ALREADY_EXISTS", "message": "twice"}}`, "application/json", wire.AlreadyExists, "twice"},
		{404, `{"code": "not_found", "message": "m"}`, "application/json", wire.NotFound, "m"},
		{400, `{"error": "invalid_grant", "error_description": "expired"}`, "application/json", wire.InvalidArgument, "expired"},
		{400, `{"error": "invalid_grant"}`, "application/json", wire.InvalidArgument, "invalid_grant"},
		{403, `{"title": "Forbidden", "detail": "not yours", "status": 403}`, "application/problem+json", wire.PermissionDenied, "not yours"},
		{500, `{"message": "` + strings.Repeat("ä", 700) + `"}`, "application/json", wire.Internal, strings.Repeat("ä", 512) + "…"},
		{500, `[1`, "application/json", wire.Internal, "sluice: the backend answered HTTP 500 Internal Server Error"},
	}
	m := outboundMethods(t)["Get"]
	for _, tt := range tests {
		b := &restBackend{status: tt.status, body: tt.body, header: http.Header{"Content-Type": {tt.kind}, "X-Why": {"so"}}}
		opening := b.opening(&outcomes{})
		opening.Limits.MaxMessage = 4 << 10
		c := mustOutbound(t, m).Open(opening)
		_ = c.Send(Message{Data: encodedAs(t, m, `{"name": "x"}`, false)}, true)
		_, err := c.Receive()
		st, _ := errors.AsType[*wire.Status](err)
		if st == nil || st.Code != tt.code || tt.message != "" && st.Message != tt.message {
			t.Errorf("HTTP %d %.60s: %v, want %v: %s", tt.status, tt.body, err, tt.code, tt.message)
			continue
		}
		if st.Gateway || st.HTTP != 0 {
			t.Errorf("HTTP %d %.60s: of the gateway %v, HTTP %d", tt.status, tt.body, st.Gateway, st.HTTP)
		}
		if c.Trailer().Get("X-Why") != "so" {
			t.Errorf("HTTP %d: trailer %v", tt.status, c.Trailer())
		}
		c.Close()
	}
}

func TestOutboundKeepsDetails(t *testing.T) {
	m := outboundMethods(t)["Get"]
	b := &restBackend{status: 400, header: http.Header{"Content-Type": {"application/json"}, "Retry-After": {"7"}}, body: `{"code": 3, "message": "m", "details": [
		{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{"field": "name", "description": "d"}]},
		{"@type": "type.googleapis.com/out.v1.Sub", "name": "s"},
		{"@type": "type.googleapis.com/unknown.Type", "value": "AAE="},
		{"@type": "type.googleapis.com/unknown.Type", "value": {}},
		7]}`}
	c := mustOutbound(t, m).Open(b.opening(&outcomes{}))
	defer c.Close()
	_ = c.Send(Message{Data: encodedAs(t, m, `{"name": "x"}`, false)}, true)
	_, err := c.Receive()
	st, _ := errors.AsType[*wire.Status](err)
	var full rpcstatus.Status
	if err := proto.Unmarshal(st.Details, &full); err != nil {
		t.Fatal(err)
	}
	got, err := protojson.MarshalOptions{Resolver: m.Schema}.Marshal(full.Details[1])
	if err != nil || !strings.Contains(string(got), `"s"`) {
		t.Errorf("detail %s, %v", got, err)
	}
	var names []string
	for _, d := range full.Details {
		names = append(names, string(d.MessageName()))
	}
	if want := "[google.rpc.BadRequest out.v1.Sub unknown.Type google.rpc.RetryInfo]"; fmt.Sprint(names) != want {
		t.Errorf("details %v, want %s", names, want)
	}
	if full.Code != 3 || full.Message != "m" {
		t.Errorf("status %v", &full)
	}
}

// The details of an error become a header field: they are not as many as there may be.
func TestOutboundBoundsDetails(t *testing.T) {
	m := outboundMethods(t)["Get"]
	one := `{"@type": "type.googleapis.com/out.v1.Sub", "name": "` + strings.Repeat("x", 1000) + `"}`
	b := &restBackend{status: 400, body: `{"code": 3, "details": [` + strings.Repeat(one+",", 1000) + one + "]}"}
	opening := b.opening(&outcomes{})
	opening.Limits.MaxMessage = 4 << 20
	c := mustOutbound(t, m).Open(opening)
	defer c.Close()
	_ = c.Send(Message{Data: encodedAs(t, m, `{"name": "x"}`, false)}, true)
	_, err := c.Receive()
	if st, _ := errors.AsType[*wire.Status](err); len(st.Details) == 0 || len(st.Details) > maxFailureDetails+1024 {
		t.Errorf("%d bytes of details", len(st.Details))
	}
}

// Nor do the parts of an error take many times the room that it takes itself.
func TestOutboundKeepsLittleOfAnError(t *testing.T) {
	for name, body := range map[string]string{
		"details": `{"message": "full", "details": [` + strings.Repeat("1,", 2_000_000) + "1]}",
		"members": `{"message": "full"` + strings.Repeat(`,"a":1,"b":2`, 300_000) + "}",
		"within":  `{"error": {"message": "full"` + strings.Repeat(`,"":1`, 800_000) + "}}",
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var s statusBody
		s.read([]byte(body))
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 24<<20 || s.Message != "full" {
			t.Errorf("%s: %d bytes for an error of %d, message %q", name, took, len(body), s.Message)
		}
	}
}

func TestOutboundCallEndsOnce(t *testing.T) {
	m := outboundMethods(t)["Get"]
	good := encodedAs(t, m, `{"name": "x"}`, false)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(good)
	z.Close()
	tests := []struct {
		name string
		do   func(c Call) error
		b    restBackend
		want string
		sent int // requests
	}{
		{"a message", func(c Call) error { return c.Send(Message{Data: good}, true) }, restBackend{status: 200}, "OK", 1},
		{"a message, and then its end", func(c Call) error { return errors.Join(c.Send(Message{Data: good}, false), c.CloseSend()) }, restBackend{status: 200}, "OK", 1},
		{"a compressed message", func(c Call) error { return c.Send(Message{Data: zipped.Bytes(), Compressed: true}, true) }, restBackend{status: 200}, "OK", 1},
		{"no message", func(c Call) error { return c.CloseSend() }, restBackend{}, "UNIMPLEMENTED", 0},
		{"two messages", func(c Call) error {
			return errors.Join(c.Send(Message{Data: good}, false), c.Send(Message{Data: good}, true))
		}, restBackend{}, "UNIMPLEMENTED", 0},
		{"a message that is none", func(c Call) error { return c.Send(Message{Data: []byte{0xff}}, true) }, restBackend{}, "INTERNAL", 0},
		{"a message that is no gzip", func(c Call) error { return c.Send(Message{Data: good, Compressed: true}, true) }, restBackend{}, "INVALID_ARGUMENT", 0},
		{"a long message", func(c Call) error { return c.Send(Message{Data: make([]byte, 2<<10)}, true) }, restBackend{}, "RESOURCE_EXHAUSTED", 0},
		{"given up before it began", func(c Call) error { return c.Abort(refusal(wire.Aborted, "x")) }, restBackend{}, "ABORTED", 0},
		{"closed before it began", func(c Call) error { c.Close(); return nil }, restBackend{}, "CANCELLED", 0},
		{"an endpoint that is gone", func(c Call) error { return c.Send(Message{Data: good}, true) }, restBackend{err: errors.New("connection refused")}, "UNAVAILABLE", 1},
		{"no endpoint", func(c Call) error { return c.Send(Message{Data: good}, true) }, restBackend{err: refusal(wire.ResourceExhausted, "full")}, "RESOURCE_EXHAUSTED", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := &outcomes{}
			opening := tt.b.opening(e)
			opening.Encoding = "gzip"
			c := mustOutbound(t, m).Open(opening)
			_ = tt.do(c)
			_, err := c.Receive()
			if tt.want == "OK" {
				if err == nil {
					_, err = c.Receive()
				}
				if err != io.EOF {
					t.Errorf("error %v", err)
				}
			} else if st, _ := errors.AsType[*wire.Status](err); st == nil || st.Code.String() != tt.want {
				t.Errorf("error %v, want %s", err, tt.want)
			}
			c.Abort(refusal(wire.Internal, "too late"))
			c.Close()
			if fmt.Sprint(e.statuses) != "["+tt.want+"]" {
				t.Errorf("ended with %v", e.statuses)
			}
			if err := c.Send(Message{Data: good}, true); err == nil {
				t.Error("a message was taken after the end")
			}
			if len(tt.b.asked) != tt.sent {
				t.Errorf("%d requests, want %d", len(tt.b.asked), tt.sent)
			}
		})
	}
}

// Whoever waits for the message, or for the answer, waits until the deadline and no
// longer, and no longer than the caller is there.
func TestOutboundCallWaitsUntilItsDeadline(t *testing.T) {
	m := outboundMethods(t)["Get"]
	for _, name := range []string{"for the message", "for the answer", "for the body"} {
		for _, cancelled := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				e := &outcomes{}
				opening := (&restBackend{status: 200}).opening(e)
				opening.Timeout = 5 * time.Second
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				opening.Context = ctx
				opening.Send = func(r *http.Request) (*http.Response, error) {
					if name == "for the body" {
						return &http.Response{StatusCode: 200, Header: http.Header{}, Body: stuckBody{r.Context()}}, nil
					}
					<-r.Context().Done()
					return nil, r.Context().Err()
				}
				c := mustOutbound(t, m).Open(opening)
				defer c.Close()
				if name != "for the message" {
					_ = c.Send(Message{Data: encodedAs(t, m, `{"name": "x"}`, false)}, true)
				}
				want, after := wire.DeadlineExceeded, 5*time.Second
				if cancelled {
					want, after = wire.Canceled, time.Second
					time.AfterFunc(after, cancel)
				}
				begin := time.Now()
				_, err := c.Header()
				if st, _ := errors.AsType[*wire.Status](err); st == nil || st.Code != want || time.Since(begin) != after {
					t.Errorf("%s: %v after %v, want %v after %v", name, err, time.Since(begin), want, after)
				}
			})
		}
	}
}

type stuckBody struct{ ctx context.Context }

func (b stuckBody) Read([]byte) (int, error) {
	<-b.ctx.Done()
	return 0, b.ctx.Err()
}
func (b stuckBody) Close() error { return nil }
