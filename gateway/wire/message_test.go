package wire

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestAppendMessageEscapesWhatAFieldCannotHold(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"empty", "", ""},
		{"plain", "no such cart", "no such cart"},
		{"percent", "100%", "100%25"},
		{"line break", "a\r\nb", "a%0D%0Ab"},
		{"nul and delete", "\x00\x7f", "%00%7F"},
		{"last plain byte", "~", "~"},
		{"two bytes of UTF-8", "é", "%C3%A9"},
		{"four bytes of UTF-8", "😀", "%F0%9F%98%80"},
		{"not UTF-8", "a\xffb", "a%EF%BF%BDb"},
		{"blank at either end", " a b ", "%20a b%20"},
		{"only a blank", " ", "%20"},
		{"only blanks", "   ", "%20 %20"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := string(AppendMessage([]byte(">"), tc.in)); got != ">"+tc.want {
				t.Errorf("AppendMessage(%q) = %q, want %q", tc.in, got[1:], tc.want)
			}
		})
	}
}

func TestDecodeMessageNeverFails(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"empty", "", ""},
		{"nothing to decode", "no such cart", "no such cart"},
		{"upper case", "caf%C3%A9", "café"},
		{"lower case", "caf%c3%a9", "café"},
		{"escape that says percent", "%2541", "%41"},
		{"percent at the end", "100%", "100%"},
		{"half an escape", "100%4", "100%4"},
		{"no digits", "%zz%4z%z4", "%zz%4z%z4"},
		{"bad then good", "%%41", "%A"},
		{"bytes around the digits", "%/0%:0%@0%G0%`0%g0", "%/0%:0%@0%G0%`0%g0"},
		{"not UTF-8 when decoded", "a%FFb", "a\uFFFDb"},
		{"not UTF-8 as it came", "a\xffb", "a\uFFFDb"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := DecodeMessage(tc.in); got != tc.want {
				t.Errorf("DecodeMessage(%q) = %q, want %q", tc.in, got, tc.want)
			}
		})
	}
}

func FuzzMessage(f *testing.F) {
	for _, s := range []string{"", "plain", " ends ", "%", "%4", "%41", "é😀", "\xff", "a\r\nb", "%E2%82"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := DecodeMessage(s); !utf8.ValidString(got) {
			t.Fatalf("DecodeMessage(%q) = %q, not UTF-8", s, got)
		}
		wire := string(AppendMessage(nil, s))
		if wire != strings.TrimSpace(wire) {
			t.Fatalf("AppendMessage(%q) = %q starts or ends with a blank", s, wire)
		}
		for i := range len(wire) {
			if wire[i] < ' ' || wire[i] > '~' {
				t.Fatalf("AppendMessage(%q) = %q holds %#x", s, wire, wire[i])
			}
		}
		// Each byte that is not part of UTF-8 was replaced by itself: that is what
		// a conversion through runes does, where ToValidUTF8 would join a run.
		if got, want := DecodeMessage(wire), string([]rune(s)); got != want {
			t.Fatalf("message %q came back as %q, want %q", s, got, want)
		}
	})
}
