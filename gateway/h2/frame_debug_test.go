package h2

import (
	"fmt"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A frame as the tests write it down and as a failure shows it. Two frames are
// the same when their strings are.
type debugFrame interface{ String() string }

type (
	debugData struct {
		id   uint32
		data string
		end  bool
	}
	// debugHeaders is a whole header section, however many frames it came in.
	debugHeaders struct {
		id     uint32
		fields string // of joinFields
		end    bool
	}
	debugReset struct {
		id   uint32
		code http2.ErrCode
	}
	debugSettings     struct{ list string }
	debugSettingsAck  struct{}
	debugPing         struct{ data string }
	debugPingAck      struct{ data string }
	debugWindowUpdate struct{ id, n uint32 }
	debugGoAway       struct {
		last uint32
		code http2.ErrCode
	}
	debugOther struct{ header string }
)

func (f debugData) String() string {
	return fmt.Sprintf("DATA %d %s%s", f.id, abridge(f.data), debugEnd(f.end))
}

func (f debugHeaders) String() string {
	return fmt.Sprintf("HEADERS %d [%s]%s", f.id, f.fields, debugEnd(f.end))
}
func (f debugReset) String() string     { return fmt.Sprintf("RST_STREAM %d %v", f.id, f.code) }
func (f debugSettings) String() string  { return "SETTINGS " + f.list }
func (debugSettingsAck) String() string { return "SETTINGS ack" }
func (f debugPing) String() string      { return "PING " + f.data }
func (f debugPingAck) String() string   { return "PING ack " + f.data }
func (f debugGoAway) String() string    { return fmt.Sprintf("GOAWAY last %d %v", f.last, f.code) }
func (f debugOther) String() string     { return f.header }
func (f debugWindowUpdate) String() string {
	return fmt.Sprintf("WINDOW_UPDATE %d +%d", f.id, f.n)
}

func debugEnd(end bool) string {
	if end {
		return " end"
	}
	return ""
}

// abridge shows short data whole, and of long data its length, beginning and sum.
func abridge(s string) string {
	if len(s) <= 32 {
		return fmt.Sprintf("%q", s)
	}
	sum := uint32(0)
	for i := range len(s) {
		sum = sum*31 + uint32(s[i])
	}
	return fmt.Sprintf("%d bytes %q... %08x", len(s), s[:8], sum)
}

// debugOf copies what x/net's Framer has read.
func debugOf(f http2.Frame) debugFrame {
	switch f := f.(type) {
	case *http2.DataFrame:
		return debugData{f.StreamID, string(f.Data()), f.StreamEnded()}
	case *http2.MetaHeadersFrame:
		return debugHeaders{f.StreamID, joinFields(f.Fields), f.StreamEnded()}
	case *http2.RSTStreamFrame:
		return debugReset{f.StreamID, f.ErrCode}
	case *http2.SettingsFrame:
		if f.IsAck() {
			return debugSettingsAck{}
		}
		var list []string
		f.ForeachSetting(func(s http2.Setting) error {
			list = append(list, fmt.Sprintf("%v=%d", s.ID, s.Val))
			return nil
		})
		return debugSettings{strings.Join(list, " ")}
	case *http2.PingFrame:
		data := strings.TrimRight(string(f.Data[:]), "\x00")
		if f.IsAck() {
			return debugPingAck{data}
		}
		return debugPing{data}
	case *http2.GoAwayFrame:
		return debugGoAway{f.LastStreamID, f.ErrCode}
	case *http2.WindowUpdateFrame:
		return debugWindowUpdate{f.StreamID, f.Increment}
	}
	return debugOther{f.Header().String()}
}

// joinFields writes fields as "name: value, name: value"; a name that must never
// be indexed has an exclamation mark in front.
func joinFields(fields []hpack.HeaderField) string {
	parts := make([]string, len(fields))
	for i, f := range fields {
		if f.Sensitive {
			parts[i] = "!"
		}
		parts[i] += f.Name + ": " + f.Value
	}
	return strings.Join(parts, ", ")
}

// splitFields reads one field for each argument, as joinFields writes them.
func splitFields(lines ...string) []hpack.HeaderField {
	fields := make([]hpack.HeaderField, len(lines))
	for i, line := range lines {
		line, sensitive := strings.CutPrefix(line, "!")
		pseudo := strings.HasPrefix(line, ":")
		name, value, _ := strings.Cut(strings.TrimPrefix(line, ":"), ":")
		if pseudo {
			name = ":" + name
		}
		fields[i] = hpack.HeaderField{Name: name, Value: strings.TrimPrefix(value, " "), Sensitive: sensitive}
	}
	return fields
}

// engineFields is splitFields for what we send ourselves.
func engineFields(lines ...string) []Field {
	var fields []Field
	for _, f := range splitFields(lines...) {
		field := IndexedField(f.Name, f.Value)
		if f.Sensitive {
			field.indexing = neverIndexed
		}
		fields = append(fields, field)
	}
	return fields
}
