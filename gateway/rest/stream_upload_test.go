package rest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/protobuf/proto"

	"sluice/gateway/wire"
)

// collect gives what comes to messages, and answers in the end.
func collect(messages chan<- []byte) func(*connectCall) *wire.Status {
	return func(c *connectCall) *wire.Status {
		defer close(messages)
		for {
			m, ok := c.recv()
			if !ok {
				break
			}
			messages <- m.Data
		}
		c.send(Message{})
		return nil
	}
}

func TestServerSendsEachValueOfABodyAtOnce(t *testing.T) {
	overBoth(t, func(t *testing.T, client *http.Client) {
		messages := make(chan []byte)
		p := newShop(t, collect(messages))
		out, in := io.Pipe()
		url := p.serve(t).URL + "/v1/items:import"
		done := make(chan string)
		go func() {
			defer close(done)
			req, _ := http.NewRequest("POST", url, out)
			req.Header.Set("Content-Type", "application/x-ndjson")
			resp, err := client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			done <- string(b)
		}()
		for _, piece := range []string{`{"name":"a"}`, ` {"name":"b"}` + "\n", "\r\n\t" + `{"name":"c"}`} {
			io.WriteString(in, piece)
			if got := inJSON(t, "Item", <-messages); got != strings.TrimSpace(piece) {
				t.Errorf("sent %q, backend got %q", piece, got)
			}
		}
		in.Close()
		if m, ok := <-messages; ok {
			t.Errorf("there was one message more: %q", m)
		}
		if body := <-done; !strings.HasPrefix(body, "{") {
			t.Errorf("answer is %q", body)
		}
	})
}

func TestServerTellsWhatIsWrongWithAnUpload(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		fields     []string
		status     int
		message    string
	}{
		{"not JSON", `{"name":"a"} {"name"}`, nil, 400, "sluice: message 2 of the request: "},
		{"no value", `{"name":"a"} , {}`, nil, 400, `message 2 of the request: ',' begins no JSON value`},
		{"cut off", `{"name":"a"} {"name":"b"`, nil, 400, "message 2 of the request: reading the request's body: unexpected EOF"},
		{"an array", `[{"name":"a"},{"name":"b"}]`, nil, 400, "send the messages one after another, without brackets and commas"},
		{"an unknown field", `{"colour":1}`, nil, 400, "colour"},
		{"too large", `{"name":"a"} {"name":"` + strings.Repeat("a", 2000) + `"}`, nil, 413, "message 2 of the request: the request's message is larger than 1000 bytes"},
		{"too large without an end", `{"name":"` + strings.Repeat("a", 1<<20), nil, 413, "larger than 1000 bytes"},
		{"too large when decompressed", string(gzipped(nil, []byte(`{}{"name":"`+strings.Repeat("a", 1<<20)))), []string{"Content-Encoding: gzip"}, 413, "larger than 1000 bytes, decompressed"},
		{"deep", strings.Repeat("[", 900) + strings.Repeat("]", 900), nil, 413, "larger than 1000 bytes"},
		{"not gzip", "{}", []string{"Content-Encoding: gzip"}, 400, "decompressing"},
		{"another type", "{}", []string{"Content-Type: text/plain"}, 415, "want application/x-ndjson"},
		{"another encoding", "{}", []string{"Content-Encoding: br"}, 415, "want gzip"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, client *http.Client) {
				messages := make(chan []byte, 10)
				p := newShop(t, collect(messages))
				p.limits.MaxMessage = 1000
				fields := slices.Clone(tt.fields)
				if !strings.Contains(strings.Join(fields, ""), "Content-Type") {
					fields = append(fields, "Content-Type: application/x-ndjson")
				}
				for _, path := range []string{"/v1/items:import", "/v1/items:talk"} {
					resp, body := ask(t, client, "POST", p.serve(t).URL+path, tt.body, fields...)
					if resp.StatusCode != tt.status || !strings.Contains(body, tt.message) {
						t.Errorf("%s: answer is %d %s, want %d with %q", path, resp.StatusCode, body, tt.status, tt.message)
					}
					if p.aborted(t) == nil {
						t.Errorf("%s: the RPC was not ended", path)
					}
					messages = make(chan []byte, 10)
					p.backend = collect(messages)
				}
			})
		})
	}
}

func TestServerTakesUploadsInEveryForm(t *testing.T) {
	for _, tt := range []struct {
		name, body, contentType, encoding string
		want                              []string
	}{
		{"lines", "{\"name\":\"a\"}\n\n{\"name\":\"b\"}\n", "application/x-ndjson", "", []string{`{"name":"a"}`, `{"name":"b"}`}},
		{"one after another", `{"name":"}{"}{"name":"\"]"}`, "application/json", "", []string{`{"name":"}{"}`, `{"name":"\"]"}`}},
		{"compressed", string(gzipped(nil, []byte(`{"name":"a"}{}`))), "application/jsonl; charset=utf-8", "gzip", []string{`{"name":"a"}`, `{}`}},
		{"white space", " \n", "application/json", "", nil},
		{"nothing", "", "", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, client *http.Client) {
				messages := make(chan []byte, 10)
				var fields []string
				if tt.contentType != "" {
					fields = append(fields, "Content-Type: "+tt.contentType)
				}
				if tt.encoding != "" {
					fields = append(fields, "Content-Encoding: "+tt.encoding)
				}
				resp, body := ask(t, client, "POST", newShop(t, collect(messages)).serve(t).URL+"/v1/items:import", tt.body, fields...)
				if resp.StatusCode != 200 {
					t.Fatalf("answer is %d %s", resp.StatusCode, body)
				}
				var got []string
				for m := range messages {
					got = append(got, inJSON(t, "Item", m))
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("backend got %q, want %q", got, tt.want)
				}
			})
		})
	}
}

func TestServerSendsRawUploadsInPieces(t *testing.T) {
	for _, size := range []int{0, 1, 3*chunkSize + 1} {
		overBoth(t, func(t *testing.T, client *http.Client) {
			messages := make(chan []byte, 100)
			sent := strings.Repeat("\xff", size)
			resp, body := ask(t, client, "POST", newShop(t, collect(messages)).serve(t).URL+"/v1/receipts/7", sent, "Content-Type: image/png")
			if resp.StatusCode != 200 {
				t.Fatalf("answer is %d %s", resp.StatusCode, body)
			}
			var got []byte
			count := 0
			for m := range messages {
				id, file := uploadOf(t, m)
				if id != "7" || size > 0 && file.GetContentType() != "image/png" || len(file.GetData()) > chunkSize {
					t.Errorf("message has id %q and %d bytes of %q", id, len(file.GetData()), file.GetContentType())
				}
				got = append(got, file.GetData()...)
				count++
			}
			if string(got) != sent || count == 0 {
				t.Errorf("%d bytes came in %d messages, want %d", len(got), count, size)
			}
		})
	}
}

// uploadOf takes a message of the example service apart.
func uploadOf(t *testing.T, m []byte) (id string, file *httpbody.HttpBody) {
	t.Helper()
	var u struct {
		ID   string
		File *httpbody.HttpBody
	}
	s, err := cartSchema()
	if err != nil {
		t.Fatal(err)
	}
	kind := s.Method("/shop.v1.Cart/Scan").Input
	msg := kind.New()
	if err := proto.Unmarshal(m, msg.Interface()); err != nil {
		t.Fatal(err)
	}
	fields := kind.Descriptor().Fields()
	u.ID = msg.Get(fields.ByName("id")).String()
	b, err := proto.Marshal(msg.Get(fields.ByName("file")).Message().Interface())
	if err != nil {
		t.Fatal(err)
	}
	u.File = new(httpbody.HttpBody)
	if err := proto.Unmarshal(b, u.File); err != nil {
		t.Fatal(err)
	}
	return u.ID, u.File
}

// A backend may answer before it has heard everything; the caller hears it though it is
// still sending.
func TestServerAnswersAnUploadThatTheBackendHasEnough(t *testing.T) {
	for _, path := range []string{"/v1/items:import", "/v1/items:talk"} {
		overBoth(t, func(t *testing.T, client *http.Client) {
			p := newShop(t, func(c *connectCall) *wire.Status {
				c.recv()
				return &wire.Status{Code: wire.ResourceExhausted, Message: "enough"}
			})
			out, in := io.Pipe()
			defer in.Close()
			go io.WriteString(in, `{"name":"a"}`)
			resp := begin(t, client, "POST", p.serve(t).URL+path, out, "Content-Type: application/json")
			defer resp.Body.Close()
			if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 429 || !strings.Contains(string(b), `"enough"`) {
				t.Errorf("%s: answer is %d %s", path, resp.StatusCode, b)
			}
		})
	}
}

// broken is a body whose reader is at fault.
type broken struct{}

func (broken) Read([]byte) (int, error) { panic("broken reader") }

// A panic beside the exchange's goroutine would end the process.
func TestServerPanicsOnlyWhereItIsCaught(t *testing.T) {
	p := newShop(t, func(c *connectCall) *wire.Status {
		<-c.ctx.Done()
		return nil
	})
	r := httptest.NewRequest("POST", "/v1/items:import", broken{})
	r.Header.Set("Content-Type", "application/json")
	defer func() {
		if v := recover(); v != "broken reader" {
			t.Errorf("recovered %v", v)
		}
		if c := p.last(t); !c.closed {
			t.Error("the RPC was not closed")
		}
	}()
	NewServer(Options{}).ServeREST(httptest.NewRecorder(), r, p)
}

func TestValuesAreCutWhereTheyEnd(t *testing.T) {
	for _, tt := range []struct {
		body string
		want []string
		err  error
	}{
		{"", nil, io.EOF},
		{" \t\r\n", nil, io.EOF},
		{`1 -2.5e3`, []string{"1", "-2.5e3"}, io.EOF},
		{`true"a"null[1]{}`, []string{"true", `"a"`, "null", "[1]", "{}"}, io.EOF},
		{`"\\" "\"" "a\\\"b"`, []string{`"\\"`, `"\""`, `"a\\\"b"`}, io.EOF},
		{`[{"a":["]"]}]`, []string{`[{"a":["]"]}]`}, io.EOF},
		{`{"a":1`, nil, io.ErrUnexpectedEOF},
		{`"a`, nil, io.ErrUnexpectedEOF},
		{`1,2`, []string{"1"}, nil},
		{`]`, nil, nil},
		{`123456789`, nil, errTooLong},
		{`12345678`, []string{"12345678"}, io.EOF},
		{`"123456"`, []string{`"123456"`}, io.EOF},
		{`"1234567"`, nil, errTooLong},
	} {
		limit := 8
		if strings.HasPrefix(tt.body, "[{") || strings.HasPrefix(tt.body, `"\`) {
			limit = 100
		}
		for _, in := range []io.Reader{strings.NewReader(tt.body), iotest.OneByteReader(strings.NewReader(tt.body)), iotest.DataErrReader(strings.NewReader(tt.body))} {
			got, err := cut(&values{body: in, limit: limit})
			if !slices.Equal(got, tt.want) || tt.err != nil && err != tt.err || tt.err == nil && !isStatus(err) {
				t.Errorf("%q is cut into %q, %v, want %q, %v", tt.body, got, err, tt.want, tt.err)
			}
		}
	}
}

func isStatus(err error) bool { _, ok := err.(*wire.Status); return ok }

// cut takes all values.
func cut(v *values) (all []string, err error) {
	for {
		b, err := v.next()
		if err != nil {
			return all, err
		}
		all = append(all, string(b))
	}
}

func TestValuesBoundTheirBuffer(t *testing.T) {
	v := &values{body: io.MultiReader(strings.NewReader(`"`), iotest.OneByteReader(bytes.NewReader(bytes.Repeat([]byte("a"), 1<<20)))), limit: 50_000}
	if _, err := v.next(); err != errTooLong {
		t.Errorf("a value beyond the limit is %v", err)
	}
	if cap(v.buf) > v.limit+valuesBuffer {
		t.Errorf("the buffer has %d bytes for values of %d", cap(v.buf), v.limit)
	}
}

// Ten gigabytes of nothing compress to ten megabytes.
func TestValuesBoundWhatIsBetweenThem(t *testing.T) {
	nothing := io.LimitReader(blanks{}, 1<<40)
	v := &values{body: io.MultiReader(strings.NewReader("1"), nothing), limit: 50_000}
	if _, err := v.next(); err != nil {
		t.Fatal(err)
	}
	if _, err := v.next(); err != errTooLong {
		t.Errorf("space beyond the limit is %v", err)
	}
}

// blanks is a body of spaces without end.
type blanks struct{}

func (blanks) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// encoding/json is the oracle: of what it takes, the values are the same, but that
// numbers and names which touch are one value here, and then no JSON.
func FuzzValues(f *testing.F) {
	f.Add([]byte(`{"a":"b"}{"c":[1,2]}`), 1)
	f.Add([]byte("1 2\n\"\\\"\"null"), 3)
	f.Add([]byte(`[}{]`), 2)
	f.Add([]byte("0null"), 0)
	f.Fuzz(func(t *testing.T, body []byte, piece int) {
		const limit = 1 << 16
		var want []string
		oracle := json.NewDecoder(bytes.NewReader(body))
		var err error
		for end := 0; ; {
			var raw json.RawMessage
			if err = oracle.Decode(&raw); err != nil {
				break
			}
			touches := end > 0 && int(oracle.InputOffset())-len(raw) == end
			if touches && !isMark(body[end-1]) && !isMark(raw[0]) {
				want[len(want)-1] += string(raw)
			} else {
				want = append(want, string(raw))
			}
			end = int(oracle.InputOffset())
		}
		var in io.Reader = bytes.NewReader(body)
		if piece%2 == 0 {
			in = iotest.OneByteReader(in)
		}
		got, end := cut(&values{body: in, limit: limit})
		if err == io.EOF && len(body) <= limit && (end != io.EOF || !slices.Equal(got, want)) {
			t.Errorf("%q is cut into %q, %v, want %q", body, got, end, want)
		}
		for _, v := range got {
			if len(v) == 0 || len(v) > limit {
				t.Errorf("%q has a value of %d bytes", body, len(v))
			}
		}
	})
}
