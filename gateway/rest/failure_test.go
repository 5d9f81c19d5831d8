package rest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"sluice/gateway/wire"
)

// detailed is a google.rpc.Status on the wire with those details.
func detailed(t *testing.T, details ...proto.Message) []byte {
	t.Helper()
	st := &statuspb.Status{Code: 14, Message: "busy"}
	for _, d := range details {
		if a, ok := d.(*anypb.Any); ok {
			st.Details = append(st.Details, a)
			continue
		}
		a, err := anypb.New(d)
		if err != nil {
			t.Fatal(err)
		}
		st.Details = append(st.Details, a)
	}
	b, err := proto.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestServerFailSaysStatusInJSON(t *testing.T) {
	retry := func(d time.Duration) proto.Message {
		return &errdetails.RetryInfo{RetryDelay: durationpb.New(d)}
	}
	for _, tt := range []struct {
		name   string
		status wire.Status
		http   int
		body   string
		fields map[string]string
	}{
		{
			name: "code and message", status: wire.Status{Code: wire.NotFound, Message: "no cart \"7\"\n<b>"},
			http: 404, body: `{"code":5,"message":"no cart \"7\"\n\u003cb\u003e","details":[]}`,
			fields: map[string]string{"Content-Type": "application/json", "X-Content-Type-Options": "nosniff", "Retry-After": "", "Www-Authenticate": ""},
		},
		{
			name: "a better HTTP status", status: wire.Status{Code: wire.ResourceExhausted, Message: "large", HTTP: 413},
			http: 413, body: `{"code":8,"message":"large","details":[]}`,
		},
		{
			name: "no credentials", status: wire.Status{Code: wire.Unauthenticated},
			http: 401, body: `{"code":16,"message":"","details":[]}`, fields: map[string]string{"Www-Authenticate": "Bearer"},
		},
		{
			name: "a code that gRPC does not define", status: wire.Status{Code: 4711, Message: "odd"},
			http: 500, body: `{"code":2,"message":"odd","details":[]}`,
		},
		{
			name: "an error that claims to be none", status: wire.Status{Code: wire.OK, Message: "odd"},
			http: 500, body: `{"code":2,"message":"odd","details":[]}`,
		},
		{
			name: "an HTTP status that is no error", status: wire.Status{Code: wire.Internal, HTTP: 204},
			http: 500, body: `{"code":13,"message":"","details":[]}`,
		},
		{
			name: "a message that is not UTF-8", status: wire.Status{Code: wire.Internal, Message: "a\xffb"},
			http: 500, body: `{"code":13,"message":"a\ufffdb","details":[]}`,
		},
		{
			name: "typed details", status: wire.Status{Code: wire.InvalidArgument, Details: detailed(t,
				&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "name", Description: "empty"}}},
				&errdetails.ErrorInfo{}, durationpb.New(time.Second))},
			http: 400, body: `{"code":3,"message":"","details":[` +
				`{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"name","description":"empty"}]},` +
				`{"@type":"type.googleapis.com/google.rpc.ErrorInfo"},` +
				`{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1s"}]}`,
		},
		{
			name: "details of types that nobody knows", status: wire.Status{Code: wire.Internal, Details: detailed(t,
				&anypb.Any{TypeUrl: "example.com/shop.v9.Odd", Value: []byte{1, 2, 255}}, &anypb.Any{TypeUrl: `"`, Value: nil})},
			http: 500, body: `{"code":13,"message":"","details":[{"@type":"example.com/shop.v9.Odd","value":"AQL/"},{"@type":"\"","value":""}]}`,
		},
		{
			name: "a detail that is not of its type", status: wire.Status{Code: wire.Internal, Details: detailed(t,
				&anypb.Any{TypeUrl: "type.googleapis.com/google.rpc.ErrorInfo", Value: []byte{0x0a, 0x7f}})},
			http: 500, body: `{"code":13,"message":"","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","value":"Cn8="}]}`,
		},
		{
			name: "details that are cut off", status: wire.Status{Code: wire.Internal, Details: detailed(t, &errdetails.ErrorInfo{Reason: "why"})[:12]},
			http: 500, body: `{"code":13,"message":"","details":[]}`,
		},
		{
			name: "a delay", status: wire.Status{Code: wire.Unavailable, Details: detailed(t, retry(2100*time.Millisecond))},
			http: 503, body: `{"code":14,"message":"","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"2.100s"}]}`,
			fields: map[string]string{"Retry-After": "3"},
		},
		{
			name: "a delay of whole seconds", status: wire.Status{Code: wire.ResourceExhausted, Details: detailed(t, retry(4*time.Second))},
			http: 429, fields: map[string]string{"Retry-After": "4"},
		},
		{
			name: "a delay that lies in the past", status: wire.Status{Code: wire.Unavailable, Details: detailed(t, retry(-time.Second))},
			http: 503, fields: map[string]string{"Retry-After": ""},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			NewServer(Options{}).Fail(w, httptest.NewRequest("GET", "/v1/carts/7", nil), &tt.status)
			if w.Code != tt.http {
				t.Errorf("HTTP status is %d, want %d", w.Code, tt.http)
			}
			if got := compact(t, w.Body.Bytes()); tt.body != "" && got != tt.body {
				t.Errorf("body is\n%s, want\n%s", got, tt.body)
			}
			for name, want := range tt.fields {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestServerFailWritesNoContentForHEAD(t *testing.T) {
	w := httptest.NewRecorder()
	NewServer(Options{}).Fail(w, httptest.NewRequest(http.MethodHead, "/", nil), &wire.Status{Code: wire.NotFound})
	if w.Code != 404 || w.Body.Len() != 0 {
		t.Errorf("got %d with %q, want 404 without content", w.Code, w.Body)
	}
}

func TestDetailsAreBounded(t *testing.T) {
	many := make([]proto.Message, 3*maxDetails)
	for i := range many {
		many[i] = &errdetails.ErrorInfo{}
	}
	if got := len(detailsOf(&wire.Status{Details: detailed(t, many...)})); got != maxDetails {
		t.Errorf("%d details are told, want %d", got, maxDetails)
	}
}

func FuzzDetails(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte("\x08\x05\x12\x02no\x1a\x06\x0a\x01x\x12\x01y"))
	f.Add([]byte("\x1a\x28\n$type.googleapis.com/google.rpc.RetryInfo\x12\x00"))
	f.Fuzz(func(t *testing.T, encoded []byte) {
		st := &wire.Status{Code: wire.Internal, Message: "x", Details: encoded}
		details := detailsOf(st)
		body := appendFailure(nil, st, details, nil)
		if !json.Valid(body) {
			t.Errorf("the failure is %q, which is not JSON", body)
		}
		if seconds, ok := retryAfter(details); ok && seconds < 0 {
			t.Errorf("retry after %d s", seconds)
		}
	})
}
