package rest

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"sluice/gateway/wire"
)

// violation is what a caller did wrong, and where.
type violation struct {
	field string // "items[2].quantity", the name of a parameter; "" when it is none
	kind  string // "field", "parameter", "path variable": what field is
	what  string
}

// refuse is the status of a request that is not what its method takes, with the
// violation as a google.rpc.BadRequest for those who read details.
func refuse(v violation) *wire.Status {
	st := &wire.Status{Code: wire.InvalidArgument, Gateway: true}
	st.Message = "sluice: " + v.what
	if v.field != "" {
		st.Message = fmt.Sprintf("sluice: %s %q: %s", v.kind, v.field, v.what)
	}
	detail, err := anypb.New(&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: v.field, Description: v.what},
	}})
	if err == nil {
		// What cannot be encoded is left out: the message says the same.
		st.Details, _ = proto.Marshal(&rpcstatus.Status{
			Code: int32(st.Code), Message: st.Message, Details: []*anypb.Any{detail},
		})
	}
	return st
}

// clip bounds what a message quotes of the caller's input, in bytes, and keeps it UTF-8.
func clip(s string) string {
	const limit = 64
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	if len(s) <= limit {
		return s
	}
	cut := limit
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// codecFault is why a message could not be read or written. The codec's functions
// return it as what it is, nil for none.
type codecFault struct {
	what  string
	where []string // the way to the field from the inside out: ".quantity", "[2]", ".items"
	at    int      // offset in the JSON document; -1 when it is not about its text
	// tooLarge tells that the message is larger than it may be.
	tooLarge bool
}

// in tells where the fault lies, one step further out.
func (f *codecFault) in(step string) *codecFault {
	f.where = append(f.where, step)
	return f
}

func (f *codecFault) inField(name string) *codecFault { return f.in("." + name) }

func (f *codecFault) inElement(i int) *codecFault { return f.in("[" + strconv.Itoa(i) + "]") }

func (f *codecFault) inEntry(key string) *codecFault {
	return f.in("[" + strconv.Quote(clip(key)) + "]")
}

// path is the field's path in the message: "items[2].quantity".
func (f *codecFault) path() string {
	var b strings.Builder
	for i := len(f.where) - 1; i >= 0; i-- {
		b.WriteString(f.where[i])
	}
	return strings.TrimPrefix(b.String(), ".")
}

// ofRequest is the fault of a JSON document as its sender is told.
func (f *codecFault) ofRequest(doc []byte) *wire.Status {
	v := violation{field: f.path(), kind: "field", what: f.what}
	if f.at >= 0 {
		line, column := position(doc, f.at)
		v.what += fmt.Sprintf(" (line %d, column %d)", line, column)
	}
	if v.field == "" {
		v.what = "reading the JSON body: " + v.what
	}
	st := refuse(v)
	if f.tooLarge {
		st.Code, st.HTTP, st.Details = wire.ResourceExhausted, 413, nil
	}
	return st
}

// ofAnswer is the fault of a message that a backend sent.
func (f *codecFault) ofAnswer(message string) *wire.Status {
	st := &wire.Status{Code: wire.Internal, Gateway: true}
	where := ""
	if path := f.path(); path != "" {
		where = fmt.Sprintf("field %q: ", path)
	}
	st.Message = fmt.Sprintf("sluice: the backend's answer cannot be written as JSON of %s: %s%s", message, where, f.what)
	return st
}

// position is the line and the column, in characters, of an offset; both from 1.
func position(doc []byte, at int) (line, column int) {
	before := doc[:min(at, len(doc))]
	line = 1 + bytes.Count(before, []byte("\n"))
	column = 1 + utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])
	return line, column
}
