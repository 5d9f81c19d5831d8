package rest

import (
	"io"
	"net/http"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"sluice/gateway/schema"
)

// returned is the message that the table and its endpoint read from a request.
func returned(t *testing.T, m *schema.Method, r *http.Request) []byte {
	t.Helper()
	table, faults := NewTable([]*schema.Method{m})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	matches, _ := table.Match(r.Method, r.URL.EscapedPath())
	if len(matches) != 1 {
		t.Fatalf("%s %s: %d matches", r.Method, r.URL.EscapedPath(), len(matches))
	}
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	data, err := matches[0].Decode(nil, matches[0], r.URL.RawQuery, body, r.Header.Get("Content-Type"), Limits{MaxMessage: 1 << 20})
	if err != nil {
		t.Fatalf("%s %s %q: %v", r.Method, r.URL.RequestURI(), body, err)
	}
	return data
}

// comesBack checks that a request means the message that it was made of.
func comesBack(t *testing.T, m *schema.Method, data []byte) {
	t.Helper()
	r, st := mustOutbound(t, m).request(data, "rest.example.com", http.Header{})
	if st != nil {
		return // and is not sent
	}
	want, got := dynamicpb.NewMessage(m.Descriptor.Input()), dynamicpb.NewMessage(m.Descriptor.Input())
	back := returned(t, m, r)
	if proto.Unmarshal(data, want) != nil || proto.Unmarshal(back, got) != nil {
		t.Fatalf("%s %s: read as %q, which is no message", r.Method, r.URL.RequestURI(), back)
	}
	said(want)
	said(got)
	if !proto.Equal(want, got) {
		t.Errorf("%s %s: read as %v, want %v", r.Method, r.URL.RequestURI(), got, want)
	}
}

// said takes out of a message what a request has no words for: messages without a
// field, as far as they are not in a body.
func said(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.Message() == nil || f.IsList() || f.IsMap() || wellKnown[f.Message().FullName()] != nil {
			return true
		}
		said(v.Message())
		if !v.Message().IsValid() || proto.Size(v.Message().Interface()) == 0 {
			m.Clear(f)
		}
		return true
	})
}

// What a message becomes, the path table, the query and the JSON of requests read as
// the same message.
func FuzzOutboundComesBack(f *testing.F) {
	f.Add("x", int64(1), "s", "t", []byte{0xfb, 0xff}, 1.5, true)
	f.Add("shelves/a b/books/c:d", int64(-1), "a/b", "%2F", []byte{}, 0.0, false)
	f.Add("shelves/a%2Fb/books/%2f", int64(1)<<62, "..", "+ &=;", []byte("x"), -1e300, true)
	f.Add("a/b/c", int64(0), "größe", "", []byte(nil), 1e-7, false)
	f.Add("a", int64(7), "a%b", "\x7f", []byte(nil), 3.0, false)
	f.Add("fixed", int64(7), ":verb", "a:b:c", []byte(nil), 3.0, false)
	methods := outboundMethods(f)
	f.Fuzz(func(t *testing.T, name string, number int64, sub, tag string, blob []byte, ratio float64, flag bool) {
		if !utf8.ValidString(name) || !utf8.ValidString(sub) || !utf8.ValidString(tag) {
			return
		}
		for _, method := range []string{"Get", "Deep", "Rest", "Tail", "Nested", "Whole", "List", "Scalar", "Kinds", "Any", "Literal"} {
			m := methods[method]
			msg := dynamicpb.NewMessage(m.Descriptor.Input())
			set := func(field string, v any) {
				msg.Set(m.Descriptor.Input().Fields().ByName(protoreflect.Name(field)), protoreflect.ValueOf(v))
			}
			set("name", name)
			set("number", number)
			set("blob", blob)
			set("ratio", ratio)
			set("flag", flag)
			set("maybe", tag)
			inner := msg.Mutable(m.Descriptor.Input().Fields().ByName("sub")).Message()
			fields := inner.Descriptor().Fields()
			inner.Set(fields.ByName("name"), protoreflect.ValueOfString(sub))
			inner.Mutable(fields.ByName("tags")).List().Append(protoreflect.ValueOfString(tag))
			if method == "Kinds" {
				at := msg.Mutable(m.Descriptor.Input().Fields().ByName("at")).Message()
				at.Set(at.Descriptor().Fields().ByName("seconds"), protoreflect.ValueOfInt64(number%1e9))
				wrapped := msg.Mutable(m.Descriptor.Input().Fields().ByName("wrapped")).Message()
				wrapped.Set(wrapped.Descriptor().Fields().ByName("value"), protoreflect.ValueOfString(sub))
			}
			data, err := proto.Marshal(msg)
			if err != nil {
				t.Fatal(err)
			}
			comesBack(t, m, data)
		}
	})
}

// Whatever a backend answers, there is a message or an error, of bounded size.
func FuzzOutboundReadsAnyAnswer(f *testing.F) {
	f.Add(200, "application/json", "", []byte(`{"name": "n"}`))
	f.Add(404, "application/json", "", []byte(`{"code": 5, "message": "m", "details": [{"@type": "type.googleapis.com/out.v1.Sub", "name": 1}]}`))
	f.Add(500, "", "gzip", []byte("\x1f\x8b\x08\x00"))
	f.Add(409, "application/problem+json; x", "", []byte(`{"error": {"code": 1e400, "status": 7, "details": {}}}`))
	f.Add(302, "text/html", "", []byte(`<html>`))
	methods := outboundMethods(f)
	f.Fuzz(func(t *testing.T, status int, contentType, encoding string, body []byte) {
		for _, name := range []string{"Get", "List", "Scalar", "Upload", "Field"} {
			e := &outcomes{}
			b := &restBackend{status: 100 + max(0, status)%500, body: string(body), header: http.Header{"Content-Type": {contentType}, "Content-Encoding": {encoding}}}
			c := mustOutbound(t, methods[name]).Open(b.opening(e))
			message := `{}`
			switch name {
			case "Get", "Field":
				message = `{"name": "x"}`
			}
			if err := c.Send(Message{Data: encodedAs(t, methods[name], message, false)}, true); err != nil {
				t.Fatal(err)
			}
			got, err := c.Receive()
			if st := statusFrom(err); err != nil && (st.Code == 0 || len(st.Message) > 4<<10 || !utf8.ValidString(st.Message)) {
				t.Errorf("status %v", st)
			}
			if err == nil && proto.Unmarshal(got.Data, dynamicpb.NewMessage(methods[name].Descriptor.Output())) != nil {
				t.Errorf("%q is no message", got.Data)
			}
			c.Close()
			if len(e.statuses) != 1 {
				t.Errorf("ended with %v", e.statuses)
			}
		}
	})
}

func TestOutboundComesBack(t *testing.T) {
	methods := outboundMethods(t)
	for _, tt := range []struct{ method, message string }{
		{"Get", `{"name": "a/b", "kind": "KIND_BIG", "kinds": ["KIND_BIG"], "at": "2026-01-02T03:04:05.678Z", "took": "-1.5s", "mask": "a,bC.d", "wrapped": "", "longName": "l"}`},
		{"Get", `{"name": "x", "sub": {"sub": {"sub": {"name": "deep", "tags": ["a", ""]}}}, "left": ""}`},
		{"Kinds", `{"kind": "KIND_BIG", "flag": true, "blob": "+/8=", "at": "2026-01-02T03:04:05Z", "ratio": 1e300, "wrapped": "w"}`},
		{"Nested", `{"number": "7", "sub": {"name": "s", "sub": {"name": "x"}}, "names": ["a", "b"]}`},
		{"Whole", `{"sub": {"name": "s"}, "labels": {"k": "v"}, "anything": {"a": [1, null]}, "subs": [{}, {"size": "1"}]}`},
		{"List", `{"names": ["a", "b"], "number": "-7"}`},
		{"Field", `{"name": "n", "note": "x", "raw": {"contentType": "text/csv", "data": "YSxi"}}`},
		{"Upload", `{"contentType": "image/png", "data": "AAEC"}`},
	} {
		comesBack(t, methods[tt.method], encodedAs(t, methods[tt.method], tt.message, false))
	}
}
