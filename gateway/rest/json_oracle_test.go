package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"sluice/gateway/schema"
)

// jsonSeeds are documents of every kind of field, good and bad.
var jsonSeeds = []string{
	``, ` `, `{}`, ` { } `, `null`, `[]`, `1`, `"a"`, `{`, `}`, `{}}`, `{} x`, `{"count":1,}`, `{,}`, `{"count"}`, `{"count":}`, `{count:1}`,
	`{"count":1}`, `{"count":"1"}`, `{"count":" 1"}`, `{"count":"1 "}`, `{"count":1.0}`, `{"count":1e2}`, `{"count":1.5e1}`, `{"count":100e-2}`,
	`{"count":1.5}`, `{"count":01}`, `{"count":+1}`, `{"count":-0}`, `{"count":2147483647}`, `{"count":2147483648}`, `{"count":-2147483648}`,
	`{"count":-2147483649}`, `{"count":1e10}`, `{"count":1E1}`, `{"count":true}`, `{"count":null}`, `{"count":""}`, `{"count":"x"}`, `{"count":0}`,
	`{"count":1,"count":2}`, `{"labelText":"a","label_text":"b"}`, `{"label_text":"a"}`, `{"count":null,"count":1}`, `{"count":1e99999999999}`,
	`{"serial":"9223372036854775807"}`, `{"serial":9223372036854775808}`, `{"serial":-9223372036854775808}`, `{"serial":"-9223372036854775809"}`,
	`{"stock":"18446744073709551615"}`, `{"stock":18446744073709551616}`, `{"stock":-1}`, `{"stock":-0}`, `{"shelf":4294967295}`, `{"shelf":4294967296}`,
	`{"shift":-5,"balance":"-6","mark":7,"seal":"8","slope":-9,"depth":"-10"}`, `{"stock":1.8446744073709551615e19}`, `{"stock":0.1e20}`,
	`{"weight":1.5,"width":2.5}`, `{"weight":"NaN","width":"Infinity"}`, `{"weight":"-Infinity"}`, `{"weight":1e400}`, `{"width":1e39}`, `{"weight":"1e3"}`,
	`{"weight":-0}`, `{"weight":"inf"}`, `{"weight":""}`, `{"weight":NaN}`, `{"width":3.4028235677973366e38}`, `{"weight":1e-320}`, `{"weight":"0x10"}`,
	`{"fragile":true}`, `{"fragile":false}`, `{"fragile":"true"}`, `{"fragile":1}`, `{"fragile":truex}`,
	`{"labelText":"äöü \u00e4 \ud83d\ude00 \n\t\"\\\/\b\f\r"}`, `{"labelText":"\ud800"}`, `{"labelText":"\udc00"}`, `{"labelText":"\ud800\u0041"}`, `{"labelText":"\x"}`,
	"{\"labelText\":\"\xff\"}", "{\"labelText\":\"a\nb\"}", `{"labelText":"\u12"}`, `{"labelText":"\u12G4"}`, `{"labelText":"a`, `{"labelText":"a\`, `{"labelText":5}`,
	"{\"labelText\":\"\xc3\\n\xa4\"}", "{\"labelText\":\"\\u0000\"}", "{\"labelText\":\"\x7f\"}",
	`{"picture":"AQID"}`, `{"picture":"AQI="}`, `{"picture":"AQI"}`, `{"picture":"-_-_"}`, `{"picture":"+/+/"}`, `{"picture":"-_+/"}`, `{"picture":"A"}`, `{"picture":"A==="}`, `{"picture":""}`, `{"picture":"AQ\nID"}`,
	`{"size":"SIZE_TINY"}`, `{"size":1}`, `{"size":99}`, `{"size":"SIZE_NONE"}`, `{"size":"1"}`, `{"size":null}`, `{"size":-3}`, `{"size":3000000000}`, `{"size":"SIZE_UNSPECIFIED"}`, `{"size":1.0}`,
	`{"inner":{"inner":{"count":3}}}`, `{"inner":null}`, `{"inner":[]}`, `{"inner":{"nope":1}}`, `{"inner":{}}`,
	`{"weights":[1,2.5,"NaN"],"widths":[1],"counts":[1,2,3],"serials":["1",2],"balances":[-1],"marks":[1],"depths":[-2],"flags":[true,false]}`,
	`{"labels":["a","b"],"pictures":["AA==",""],"sizes":["SIZE_LARGE",0,7],"crates":[{},{"count":1}],"loose":[0,1]}`,
	`{"counts":[]}`, `{"counts":[null]}`, `{"counts":null}`, `{"counts":1}`, `{"counts":[1,]}`, `{"counts":[,1]}`, `{"counts":[1 2]}`, `{"counts":[1}`, `{"crates":[null]}`, `{"sizes":["NOPE",1]}`, `{"counts":[0,0]}`,
	`{"byString":{"a":"b","":""},"byInt32":{"-1":{"count":2}},"byInt64":{"5":"6"},"byUint32":{"7":true},"byUint64":{"8":1.5},"bySint32":{"-9":"SIZE_LARGE"}}`,
	`{"bySint64":{"-10":"AQ=="},"byFixed32":{"11":1},"bySfixed64":{"-12":"13"},"byBool":{"true":"t","false":"f"},"byValue":{"x":null,"y":[1,{"z":true}]}}`,
	`{"byString":{"a":"b","a":"c"}}`, `{"byInt32":{"1":{},"01":{}}}`, `{"byInt32":{"x":{}}}`, `{"byString":{"a":null}}`, `{"byString":null}`, `{"byString":[]}`, `{"byBool":{"yes":"1"}}`, `{"byUint32":{"-1":true}}`, `{"byInt32":{"+1":{}}}`, `{"bySint32":{"1":"NOPE"}}`,
	`{"byString":{"1":"","2":"","3":"","4":"","5":"","6":"","7":"","8":"","9":"","10":"","3":""}}`,
	`{"cork":"a"}`, `{"cork":"a","nails":1}`, `{"cork":"","nails":null}`, `{"nothing":null}`, `{"nothing":"NULL_VALUE"}`, `{"whatever":null}`, `{"cover":{},"taped":false}`, `{"nails":0}`, `{"taped":false}`,
	`{"maybeCount":0,"maybeLabel":"","maybeSize":0}`, `{"maybeCount":null}`,
	`{"any":{"@type":"type.googleapis.com/warehouse.v1.Crate","count":5}}`, `{"any":{"count":5,"@type":"x/warehouse.v1.Crate"}}`, `{"any":{}}`, `{"any":{"count":1}}`, `{"any":{"@type":""}}`, `{"any":{"@type":1}}`,
	`{"any":{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1.5s"}}`, `{"any":{"@type":"type.googleapis.com/google.protobuf.Duration"}}`, `{"any":{"value":"1s","@type":"/google.protobuf.Duration"}}`,
	`{"any":{"@type":"type.googleapis.com/google.protobuf.Empty"}}`, `{"any":{"@type":"type.googleapis.com/google.protobuf.Empty","value":{}}}`, `{"any":{"@type":"no.such.Type","a":1}}`, `{"any":{"@type":"/google.protobuf.Duration","value":"1s","value":"2s"}}`,
	`{"any":{"@type":"type.googleapis.com/google.protobuf.Any","value":{"@type":"/warehouse.v1.Crate","inner":{}}}}`, `{"any":{"@type":"/google.protobuf.Value","value":null}}`, `{"any":{"@type":"/google.protobuf.Duration","value":"1s","other":1}}`,
	`{"any":{"@type":"/warehouse.v1.Crate","@type":"/warehouse.v1.Crate"}}`, `{"any":[]}`, `{"any":null}`, `{"anys":[{},{"@type":"/warehouse.v1.Crate"}]}`, `{"any":{"@type":"/google.protobuf.Int32Value","value":0}}`,
	`{"madeAt":"2024-02-29T12:34:56Z"}`, `{"madeAt":"2024-02-29T12:34:56.123456789+02:00"}`, `{"madeAt":"0001-01-01T00:00:00Z"}`, `{"madeAt":"9999-12-31T23:59:59.999999999Z"}`, `{"madeAt":"9999-12-31T23:59:59-01:00"}`, `{"madeAt":"2024-02-30T00:00:00Z"}`, `{"madeAt":"x"}`, `{"madeAt":1}`, `{"madeAt":"2024-02-29T12:34:56.1234567891Z"}`, `{"madeAt":"1969-12-31T23:59:59.5Z"}`, `{"madeAt":"2024-02-29t12:34:56z"}`,
	`{"shelfLife":"1s"}`, `{"shelfLife":"-0.5s"}`, `{"shelfLife":"1.s"}`, `{"shelfLife":".s"}`, `{"shelfLife":"+1s"}`, `{"shelfLife":"1"}`, `{"shelfLife":"s"}`, `{"shelfLife":"315576000000s"}`, `{"shelfLife":"315576000001s"}`, `{"shelfLife":"0.0000000001s"}`, `{"shelfLife":"01s"}`, `{"shelfLife":"-1.000000001s"}`, `{"shelfLife":"+-1s"}`, `{"shelfLife":"1.+5s"}`,
	`{"facts":{"a":1,"b":[null,true,"x",{"c":{}}]}}`, `{"facts":{"a":1,"a":2}}`, `{"facts":{}}`, `{"notes":[1,[2]]}`, `{"notes":[]}`, `{"value":1.5}`, `{"value":"x"}`, `{"value":null}`, `{"value":{"a":1e400}}`, `{"value":[}`, `{"value":[]}`, `{"value":{}}`,
	`{"nullValue":null}`, `{"nullValue":"NULL_VALUE"}`, `{"nullValue":0}`, `{"nullValue":1}`, `{"nulls":[null,0]}`, `{"values":[null,1]}`, `{"values":null}`, `{"nulls":null}`,
	`{"mask":"a,bC.dE"}`, `{"mask":""}`, `{"mask":" a "}`, `{"mask":"a_b"}`, `{"mask":"a,,b"}`, `{"mask":1}`, `{"mask":"1a"}`,
	`{"empty":{}}`, `{"empty":{"a":1}}`, `{"empty":[]}`,
	`{"boolValue":true,"int32Value":1,"int64Value":"2","uint32Value":3,"uint64Value":"4","floatValue":5,"doubleValue":"NaN","stringValue":"","bytesValue":"AQ=="}`, `{"int32Value":{}}`, `{"int32Value":null}`, `{"int64Values":[1,"2"]}`, `{"int64Values":[null]}`, `{"doubleValue":-0}`,
	`{"times":["2024-01-01T00:00:00Z"],"lives":{"x":"3s"}}`, `{"lives":{"x":null}}`, `{"times":[null]}`,
	`{"\"odd\" name":"x","far":1}`, `{"odd_name":"x"}`, `{"nope":{"a":[1,{"b":null}]}}`, `{"nope":[}`, `{"[warehouse.v1.stamp]":"x"}`, `{"nope":1,"nope":2}`,
	strings.Repeat(`{"inner":`, 50) + `{}` + strings.Repeat(`}`, 50), strings.Repeat(`{"inner":`, 120) + `{}` + strings.Repeat(`}`, 120), `{"nope":` + strings.Repeat(`[`, 99) + strings.Repeat(`]`, 99) + `}`,
}

var recordSeeds = []string{
	`{"id":"a"}`, `{}`, `{"pages":0}`, `{"grade":"BAD"}`, `{"grade":3}`, `{"lines":[1,0],"packedLines":[2]}`, `{"cover":{"title":"x"}}`, `{"Cover":{"title":"x"}}`, `{"note":[{"text":"a"},{}]}`, `{"next":{"id":""}}`,
	`{"[warehouse.v1.stamp]":"x"}`, `{"[warehouse.v1.stamp]":"x","[warehouse.v1.stamp]":"y"}`, `{"[warehouse.v1.scans]":[1,2]}`, `{"[warehouse.v1.original]":{"id":"b","[warehouse.v1.stamp]":"c"}}`, `{"[warehouse.v1.none]":1}`, `{"[]":1}`, `{"[warehouse.v1.stamp]":null}`,
	`{"shelf":"a","lost":true}`, `{"shelf":"","[warehouse.v1.scans]":[]}`,
}

// trailingExponent is the one kind of number that protojson takes and JSON does not have.
var trailingExponent = regexp.MustCompile(`[0-9][eE][+-]?([^0-9+-]|$)`)

// checkJSON compares what a document says with what protojson says that it says.
func checkJSON(t *testing.T, s *schema.Schema, m protoreflect.MessageType, doc []byte, ignore bool) {
	t.Helper()
	depth, typedTwice := jsonShape(doc)
	if trailingExponent.Match(doc) || typedTwice {
		return
	}
	got, err := FromJSON(nil, m, doc, s, Limits{IgnoreUnknownFields: ignore})
	want := dynamicpb.NewMessage(m.Descriptor())
	wantErr := protojson.UnmarshalOptions{AllowPartial: true, DiscardUnknown: ignore, Resolver: s, RecursionLimit: 100}.Unmarshal(doc, want)
	if wantErr == nil && (!json.Valid(doc) || depth > maxJSONDepth) {
		wantErr = fmt.Errorf("stricter than protojson")
	}
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("FromJSON(%s) = %v, want %v (%s)", doc, err, wantErr, m.Descriptor().FullName())
	}
	if err != nil {
		return
	}
	read := dynamicpb.NewMessage(m.Descriptor())
	if err := (proto.UnmarshalOptions{AllowPartial: true, Resolver: s}).Unmarshal(got, read); err != nil {
		t.Fatalf("FromJSON(%s) wrote %x: %v", doc, got, err)
	}
	if !proto.Equal(read, want) {
		t.Fatalf("FromJSON(%s) = %v, want %v", doc, read, want)
	}
	if encoded, _ := (proto.MarshalOptions{AllowPartial: true}).Marshal(want); len(encoded) != len(got) {
		t.Fatalf("FromJSON(%s) wrote %d bytes %x, want %d %x", doc, len(got), got, len(encoded), encoded)
	}
	checkAnswer(t, s, m, got)
}

// jsonShape is how deep a document is nested, as far as it is valid, and whether an
// object of it has two "@type".
func jsonShape(doc []byte) (deepest int, typedTwice bool) {
	type open struct {
		object, value bool // value: a name has been read
		types         int
	}
	var stack []open
	d := json.NewDecoder(strings.NewReader(string(doc)))
	for {
		token, err := d.Token()
		if err != nil {
			return deepest, typedTwice
		}
		if token == json.Delim('}') || token == json.Delim(']') {
			stack = stack[:len(stack)-1]
			continue
		}
		if n := len(stack) - 1; n >= 0 && stack[n].object {
			if name, ok := token.(string); ok && !stack[n].value && name == "@type" {
				stack[n].types++
				typedTwice = typedTwice || stack[n].types > 1
			}
			stack[n].value = !stack[n].value
		}
		if token == json.Delim('{') || token == json.Delim('[') {
			stack = append(stack, open{object: token == json.Delim('{')})
			deepest = max(deepest, len(stack))
		}
	}
}

// checkAnswer compares the JSON of a message with that of protojson, which must be able
// to write it.
func checkAnswer(t *testing.T, s *schema.Schema, m protoreflect.MessageType, msg []byte) {
	t.Helper()
	read := dynamicpb.NewMessage(m.Descriptor())
	if !oracleReads(s, msg, read) {
		_, _ = ToJSON(nil, m, msg, s) // whatever it says, it must return
		return
	}
	for _, unset := range []bool{false, true} {
		text, wantErr := protojson.MarshalOptions{AllowPartial: true, Resolver: s, EmitUnpopulated: unset}.Marshal(read)
		got, err := appendJSON(nil, m.Descriptor(), msg, s, unset)
		if wantErr != nil {
			continue
		}
		var want strings.Builder
		compactJSON(&want, text)
		if depth, _ := jsonShape(text); err != nil && depth > maxJSONDepth {
			continue
		}
		if err != nil || string(got) != want.String() {
			t.Fatalf("JSON of %x, unset %v: %s, %v, want %s", msg, unset, got, err, want.String())
		}
	}
}

// oracleReads is proto.Unmarshal, which panics on some dynamic messages: where the key of a
// map's entry has another type.
func oracleReads(s *schema.Schema, msg []byte, into proto.Message) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	return proto.UnmarshalOptions{AllowPartial: true, Resolver: s, RecursionLimit: 1000}.Unmarshal(msg, into) == nil
}

// compactJSON takes out the random spaces of protojson.
func compactJSON(b *strings.Builder, text []byte) {
	quoted, escaped := false, false
	for _, c := range text {
		switch {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case !quoted && c == ' ':
			continue
		}
		b.WriteByte(c)
	}
}

func TestFromJSONReadsWhatProtojsonReads(t *testing.T) {
	s := codecSchema(t, warehouse)
	for _, ignore := range []bool{false, true} {
		for _, doc := range jsonSeeds {
			checkJSON(t, s, codecMessage(t, s, "warehouse.v1.Crate"), []byte(doc), ignore)
		}
		for _, doc := range recordSeeds {
			checkJSON(t, s, codecMessage(t, s, "warehouse.v1.Record"), []byte(doc), ignore)
		}
	}
}

func FuzzFromJSON(f *testing.F) {
	s := codecSchema(f, warehouse)
	crate, record := codecMessage(f, s, "warehouse.v1.Crate"), codecMessage(f, s, "warehouse.v1.Record")
	for _, doc := range append(jsonSeeds, recordSeeds...) {
		f.Add([]byte(doc), false)
		f.Add([]byte(doc), true)
	}
	f.Fuzz(func(t *testing.T, doc []byte, ignore bool) {
		checkJSON(t, s, crate, doc, ignore)
		checkJSON(t, s, record, doc, ignore)
	})
}

// answerSeeds are the messages of documents, and any two of them as one: fields in
// pieces, values that later ones take the place of, oneofs that change.
func answerSeeds(s *schema.Schema, m protoreflect.MessageType, docs []string) (seeds [][]byte) {
	var msgs [][]byte
	for _, doc := range docs {
		if msg, err := FromJSON(nil, m, []byte(doc), s, Limits{}); err == nil && len(msg) < 100 {
			msgs = append(msgs, msg)
		}
	}
	for i, msg := range msgs {
		seeds = append(seeds, msg, append(bytes.Clone(msg), msg...))
		seeds = append(seeds, append(bytes.Clone(msg), msgs[(i*7+3)%len(msgs)]...))
		seeds = append(seeds, append(append(bytes.Clone(msg), msgs[(i*11+5)%len(msgs)]...), msg...))
	}
	return seeds
}

func TestToJSONWritesWhatProtojsonWrites(t *testing.T) {
	s := codecSchema(t, warehouse)
	crate, record := codecMessage(t, s, "warehouse.v1.Crate"), codecMessage(t, s, "warehouse.v1.Record")
	for _, msg := range answerSeeds(s, crate, append(jsonSeeds, `{"cover":{"count":1}}`, `{"cover":{"labelText":"x"}}`, `{"inner":{"count":1,"labels":["a"]}}`, `{"inner":{"labels":["b"]}}`)) {
		checkAnswer(t, s, crate, msg)
	}
	for _, msg := range answerSeeds(s, record, recordSeeds) {
		checkAnswer(t, s, record, msg)
	}
	// Many siblings are not deep.
	element := `{"labels":["a"],"byString":{"a":"b"},"any":{"@type":"/google.protobuf.Int32Value","value":1},"facts":{"a":[1]}}`
	checkJSON(t, s, crate, []byte(`{"crates":[`+strings.Repeat(element+",", 150)+element+`]}`), false)
}

func TestFromJSONKnowsTheFieldsOfLargeMessages(t *testing.T) {
	var source, doc strings.Builder
	source.WriteString("syntax = \"proto3\"; package large.v1; message Large {\n")
	doc.WriteString("{")
	for i := range 200 {
		fmt.Fprintf(&source, "int32 f%d = %d;\n", i, i+1)
		fmt.Fprintf(&doc, "\"f%d\":%d,", i, i)
	}
	source.WriteString("}")
	s := codecSchema(t, map[string]string{"large.proto": source.String()})
	m := codecMessage(t, s, "large.v1.Large")
	checkJSON(t, s, m, []byte(strings.TrimSuffix(doc.String(), ",")+"}"), false)
	for _, twice := range []string{"f0", "f63", "f64", "f127", "f128", "f199"} {
		_, err := FromJSON(nil, m, []byte(doc.String()+`"`+twice+`":0}`), s, Limits{})
		if err == nil || !strings.Contains(err.Error(), "given twice") {
			t.Errorf("%s twice: %v, want it refused", twice, err)
		}
	}
}

func FuzzToJSON(f *testing.F) {
	s := codecSchema(f, warehouse)
	crate, record := codecMessage(f, s, "warehouse.v1.Crate"), codecMessage(f, s, "warehouse.v1.Record")
	for _, msg := range answerSeeds(s, crate, jsonSeeds) {
		f.Add(msg)
	}
	for _, msg := range answerSeeds(s, record, recordSeeds) {
		f.Add(msg)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		checkAnswer(t, s, crate, msg)
		checkAnswer(t, s, record, msg)
	})
}
