package store

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// value is one node of a document, with the way to it from the object it is part
// of. What reads it reports what is wrong and returns the zero value, so that the
// reading goes on and finds the next fault.
type value struct {
	doc    *document
	node   *yaml.Node // nil when the field is absent or null
	up     *value     // nil for the root
	key    string     // in a mapping
	index  int        // in a list
	opened *mapping   // once it was read as one
}

// path is the way to the value as a message names it: spec.rules[0].name.
func (v *value) path() string {
	switch {
	case v.up == nil:
		return ""
	case v.key == "":
		return v.up.path() + "[" + strconv.Itoa(v.index) + "]"
	}
	name := v.key
	if strings.ContainsFunc(name, func(r rune) bool { return r > '~' || r <= ' ' }) || len(name) > maxQuoted {
		name = quote(name)
	}
	if up := v.up.path(); up != "" {
		return up + "." + name
	}
	return name
}

func (v *value) absent() bool { return v.node == nil }

func (v *value) position() Position { return v.doc.position(v.node) }

func (v *value) fault(format string, args ...any) { v.faultAt(v.node, format, args...) }

func (v *value) faultAt(n *yaml.Node, format string, args ...any) {
	in := v.doc.in
	if len(in.faults.found) == maxFaults { // spare the path
		in.faults.more++
		return
	}
	in.faults.add(v.doc.position(n), v.path(), format, args...)
}

// child makes the value of a node below v: an alias is followed, null is absent.
func (v *value) child(n *yaml.Node, key string, index int) *value {
	c := &value{doc: v.doc, node: n, up: v, key: key, index: index}
	if n != nil && n.Kind == yaml.AliasNode {
		c.node = v.doc.follow(c, n)
	}
	if c.node != nil && c.node.ShortTag() == "!!null" {
		c.node = nil
	}
	return c
}

func describe(n *yaml.Node) string {
	switch tag := n.ShortTag(); {
	case tag == "!!map":
		return "a mapping"
	case tag == "!!seq":
		return "a list"
	case tag == "!!str":
		return "the string " + quote(n.Value)
	case tag == "!!int":
		return "the integer " + printable(short(n.Value))
	case tag == "!!float":
		return "the number " + printable(short(n.Value))
	case tag == "!!bool":
		return printable(short(n.Value))
	case tag == "!!null":
		return "null"
	default:
		return "a value of type " + printable(short(tag))
	}
}

// text reads a string; ok is false when there is none.
func (v *value) text() (s string, ok bool) {
	if v.absent() {
		return "", false
	}
	switch tag := v.node.ShortTag(); {
	case v.node.Kind == yaml.ScalarNode && (tag == "!!str" || tag == "!!timestamp"):
		return v.node.Value, true
	case tag == "!!int" || tag == "!!float" || tag == "!!bool":
		v.fault("want a string, not %s: put it in quotes", describe(v.node))
	default:
		v.fault("want a string, not %s", describe(v.node))
	}
	return "", false
}

// checked reads a string that check has nothing against.
func (v *value) checked(check func(string) string) (string, bool) {
	s, ok := v.text()
	if !ok {
		return "", false
	}
	if problem := check(s); problem != "" {
		v.fault("%s: %s", quote(s), problem)
		return "", false
	}
	return s, true
}

// word is checked without the ok.
func (v *value) word(check func(string) string) string {
	s, _ := v.checked(check)
	return s
}

// secret is word for what no message may repeat.
func (v *value) secret(check func(string) string) string {
	s, ok := v.text()
	if !ok {
		return ""
	}
	if problem := check(s); problem != "" {
		v.fault("%s", problem)
		return ""
	}
	return s
}

// wordOr is word, or def when there is none to check.
func (v *value) wordOr(def string, check func(string) string) string {
	if v.absent() {
		return def
	}
	return v.word(check)
}

// integer reads a whole number within the bounds, both included.
func (v *value) integer(def, low, high int) int {
	if v.absent() {
		return def
	}
	const digits = "0123456789"
	tag, text := v.node.ShortTag(), v.node.Value
	plain := strings.Trim(strings.TrimPrefix(text, "-"), digits) == ""
	if v.node.Kind != yaml.ScalarNode || tag != "!!int" && !(tag == "!!float" && plain) {
		v.fault("want an integer, not %s", describe(v.node))
		return def
	}
	if !plain || len(text) > 1 && text[0] == '0' {
		v.fault("%s: want an integer in decimal", printable(short(text)))
		return def
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		v.fault("%s is out of range, want %d to %d", short(text), low, high)
		return def
	}
	return n
}

// maxNumber is how long the text of a number may be.
const maxNumber = 20

// number reads a decimal number within the bounds, both included.
func (v *value) number(def, low, high float64) float64 {
	if v.absent() {
		return def
	}
	tag, text := v.node.ShortTag(), v.node.Value
	if v.node.Kind != yaml.ScalarNode || tag != "!!int" && tag != "!!float" {
		v.fault("want a number, not %s", describe(v.node))
		return def
	}
	n, err := strconv.ParseFloat(text, 64)
	switch {
	case len(text) > maxNumber || strings.Trim(text, "-0123456789.") != "" || err != nil:
		v.fault("%s: want a number in decimal", printable(short(text)))
	case n < low || n > high:
		v.fault("%s is out of range, want %v to %v", text, low, high)
	default:
		return n
	}
	return def
}

// oneOf reads one of the words, def when there is none to check, and "" for a fault;
// noun is what the words are.
func oneOf[T ~string](v *value, noun string, def T, words ...T) T {
	if v.absent() {
		return def
	}
	s, ok := v.text()
	if !ok {
		return ""
	}
	if !slices.Contains(words, T(s)) {
		v.fault("unknown %s %s, want %s", noun, quote(s), enumerate(words))
		return ""
	}
	return T(s)
}

// enumerate is "A", "A or B", "A, B or C".
func enumerate[T ~string](words []T) string {
	var b strings.Builder
	for i, word := range words {
		switch {
		case i > 0 && i == len(words)-1:
			b.WriteString(" or ")
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(string(word))
	}
	return b.String()
}

// boolean reads true or false.
func (v *value) boolean() bool {
	if v.absent() {
		return false
	}
	if v.node.Kind != yaml.ScalarNode || v.node.ShortTag() != "!!bool" {
		v.fault("want true or false, not %s", describe(v.node))
		return false
	}
	return v.node.Value == "true"
}

// yes reads true, for a field that says nothing when it is not there.
func (v *value) yes() bool {
	yes := v.boolean()
	if !yes && !v.absent() && v.node.ShortTag() == "!!bool" {
		v.fault("want true, or leave it out")
	}
	return yes
}

// timestamp reads a date and time.
func (v *value) timestamp() time.Time {
	s, ok := v.text()
	if !ok {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		v.fault("%s: want a time like 2006-01-02T15:04:05Z", quote(s))
		return time.Time{}
	}
	t = t.UTC()
	if year := t.Year(); year < 0 || year > 9999 { // the time zone did it
		v.fault("%s: want a year from 0000 to 9999 in UTC", quote(s))
		return time.Time{}
	}
	return t
}

// duration reads a time span within the bounds, both included.
func (v *value) duration(def, low, high time.Duration) Duration {
	if v.absent() {
		return Duration(def)
	}
	s := v.node.Value
	d, ok := parseDuration(s)
	switch {
	case !ok || v.node.ShortTag() != "!!str":
		v.fault("want a duration like 5s or 1m30s, not %s", describe(v.node))
	case d < low || d > high:
		v.fault("%s is out of range, want %s to %s", short(s), Duration(low), Duration(high))
	default:
		return Duration(d)
	}
	return Duration(def)
}

// list reads the items of a list, of which there may be limit; 0 means no limit.
func (v *value) list(limit int) []*value {
	if v.absent() {
		return nil
	}
	if v.node.Kind != yaml.SequenceNode || v.node.ShortTag() != "!!seq" {
		v.fault("want a list, not %s", describe(v.node))
		return nil
	}
	nodes := v.node.Content
	if limit > 0 && len(nodes) > limit {
		v.fault("%d entries, limit %d", len(nodes), limit)
		nodes = nodes[:limit]
	}
	items := make([]*value, 0, len(nodes))
	for i, n := range nodes {
		item := v.child(n, "", i)
		if item.absent() && n.Kind != yaml.AliasNode {
			item.faultAt(n, "null is no entry of a list")
			continue
		}
		items = append(items, item)
	}
	return items
}

// each is list with the function to read an item by.
func each[T any](items []*value, read func(*value) T) []T {
	if len(items) == 0 {
		return nil
	}
	all := make([]T, len(items))
	for i, item := range items {
		all[i] = read(item)
	}
	return all
}

// texts reads a mapping of strings; an empty one is as good as none.
func (v *value) texts(check func(string) string) map[string]string {
	if v.absent() {
		return nil
	}
	m := v.mapping()
	if len(m.fields) == 0 {
		return nil
	}
	all := make(map[string]string, len(m.fields))
	for i := range m.fields {
		f := &m.fields[i]
		all[f.key.Value] = m.child(f.content, f.key.Value, 0).word(check)
	}
	return all
}

// mapping is a mapping that is being read: each field is asked for by name, and
// finish reports those that nobody asked for.
type mapping struct {
	*value
	fields []field            // without those that are faulty themselves
	index  map[string]int     // of many fields, by name
	known  []string           // names that were asked for
	buffer [knownNames]string // of known, as long as it suffices
	none   value              // stands for every absent field
	broken bool               // it is no mapping: nothing is missing from it
}

// field is a key, what it stands before, and whether somebody asked for it.
type field struct {
	key, content *yaml.Node
	asked        bool
	value        *value // once it was read
}

const (
	knownNames = 8  // as many as most kinds of mappings have
	maxScanned = 16 // fields that are compared one by one sooner than put into a map
)

// mapping opens a mapping, and reports keys that are none or stand there twice.
func (v *value) mapping() *mapping {
	if v.opened != nil {
		return v.opened
	}
	m := &mapping{value: v, none: value{doc: v.doc, up: v}}
	m.known = m.buffer[:0]
	v.opened = m
	if v.absent() {
		m.broken = true
		return m
	}
	if v.node.Kind != yaml.MappingNode || v.node.ShortTag() != "!!map" {
		v.fault("want a mapping, not %s", describe(v.node))
		m.broken = true
		return m
	}
	m.fields = make([]field, 0, len(v.node.Content)/2)
	if cap(m.fields) > maxScanned {
		m.index = make(map[string]int, cap(m.fields))
	}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		m.open(v.node.Content[i], v.node.Content[i+1])
	}
	return m
}

func (m *mapping) open(key, content *yaml.Node) {
	switch tag := key.ShortTag(); {
	case tag == "!!merge":
		m.faultAt(key, `merge key "<<" is not supported: write the fields out`)
		return
	case key.Kind == yaml.AliasNode:
		m.faultAt(key, "want a name as the key, not an alias")
		return
	case key.Kind != yaml.ScalarNode || tag != "!!str" || key.Value == "":
		m.faultAt(key, "want a name as the key, not %s", describe(key))
		return
	}
	if m.field(key.Value) != nil {
		m.faultAtKey(key, "the key is there already")
		return
	}
	if m.index != nil {
		m.index[key.Value] = len(m.fields)
	}
	m.fields = append(m.fields, field{key: key, content: content})
}

// field is the field of that name, nil when there is none.
func (m *mapping) field(name string) *field {
	if m.index != nil {
		if at, ok := m.index[name]; ok {
			return &m.fields[at]
		}
		return nil
	}
	for i := range m.fields {
		if m.fields[i].key.Value == name {
			return &m.fields[i]
		}
	}
	return nil
}

// optional is the field of that name, absent or not.
func (m *mapping) optional(name string) *value {
	f := m.ask(name)
	switch {
	case f == nil:
		return &m.none
	case f.value == nil:
		f.value = m.child(f.content, name, 0)
	}
	return f.value
}

// ask notes that the field of that name means something, and returns it.
func (m *mapping) ask(name string) *field {
	f := m.field(name)
	if f == nil || !f.asked {
		m.known = append(m.known, name)
	}
	if f != nil {
		f.asked = true
	}
	return f
}

// required is the field of that name, with a fault when it is absent.
func (m *mapping) required(name string) *value {
	v := m.optional(name)
	if f := m.field(name); v.absent() && !m.broken && (f == nil || f.content.Kind != yaml.AliasNode) {
		missing := value{doc: m.doc, up: m.value, key: name}
		missing.faultAt(m.node, "missing")
	}
	return v
}

// exactlyOne reports a mapping that has none of these fields, or several.
func (m *mapping) exactlyOne(names ...string) {
	if m.broken {
		return
	}
	first := ""
	for _, name := range names {
		switch v := m.optional(name); {
		case v.absent():
		case first == "":
			first = name
		default:
			v.fault("%s is there already: want one of them", first)
		}
	}
	if first == "" {
		m.fault("want one of %s and %s", strings.Join(names[:len(names)-1], ", "), names[len(names)-1])
	}
}

// ignore takes fields that mean nothing to us, whatever they hold.
func (m *mapping) ignore(names ...string) {
	for _, name := range names {
		m.ask(name)
	}
}

// refuse takes fields that are known and not supported.
func (m *mapping) refuse(names ...string) {
	for _, name := range names {
		if f := m.ask(name); f != nil {
			m.faultAtKey(f.key, "%s is not supported yet", name)
		}
	}
}

// finish reports each field that was not asked for.
func (m *mapping) finish() {
	for i := range m.fields {
		if key := m.fields[i].key; !m.fields[i].asked {
			m.faultAtKey(key, "unknown field%s", suggest(key.Value, m.known))
		}
	}
}

func (m *mapping) faultAtKey(k *yaml.Node, format string, args ...any) {
	field := &value{doc: m.doc, node: k, up: m.value, key: k.Value}
	field.fault(format, args...)
}

// suggest names the word that was probably meant.
func suggest(word string, known []string) string {
	best, least := "", 3 // a distance of more than two is no slip of the finger
	for _, k := range slices.Sorted(slices.Values(known)) {
		if d := distance(word, k, least); d < least && d < len(k)-1 {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %q?", best)
}

// distance is how many bytes to insert, delete or replace to make b of a, or
// limit when it is not less. A difference in case alone is 1.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	if strings.EqualFold(a, b) {
		return 1
	}
	row := make([]int, len(b)+1) // distances of a[:i] to every b[:j]
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := corner
			if a[i] != b[j] {
				replaced++
			}
			corner = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return min(row[len(b)], limit)
}
