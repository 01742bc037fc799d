# awk -v key=NAME [-v shell=1] -f items.awk FILE: the items of the YAML list under NAME:, one a line.
# Dashes and underscores of the name are alike (the header-less "ssh-authorized-keys:" of old manifests).
# Understood: block lists, flow lists, quoted scalars, literal blocks (- |). With shell=1 a nested flow
# list becomes one quoted command. That is what runcmd and ssh_authorized_keys look like in practice.

function indent(line) { match(line, /^ */); return RLENGTH }

function unquoted(text,    quote, i, char, out) {
	sub(/^ +/, "", text)
	quote = substr(text, 1, 1)
	if (quote != "\"" && quote != "'") { sub(/ +#.*$/, "", text); sub(/ +$/, "", text); return text }
	for (i = 2; i <= length(text); i++) {
		char = substr(text, i, 1)
		if (char == "\\" && quote == "\"") char = substr(text, ++i, 1)
		else if (char == quote && (quote == "\"" || substr(text, ++i, 1) != quote)) break
		out = out char
	}
	return out
}

# Splits the inside of [ ... ] at its commas, outside of quotes, into words[1..n].
function flow(text, words,    n, i, char, quote, word) {
	n = 0; quote = ""; word = ""
	sub(/^ *\[/, "", text); sub(/\] *(#.*)?$/, "", text)
	for (i = 1; i <= length(text); i++) {
		char = substr(text, i, 1)
		if (quote == "" && char == ",") { words[++n] = unquoted(word); word = ""; continue }
		if (quote == "" && (char == "\"" || char == "'")) quote = char
		else if (char == quote && substr(text, i - 1, 1) != "\\") quote = ""
		word = word char
	}
	if (word ~ /[^ ]/) words[++n] = unquoted(word)
	return n
}

function item(text,    words, n, i, line) {
	if (text !~ /^ *\[/) { print unquoted(text); return }
	n = flow(text, words)
	for (i = 1; i <= n; i++) {
		if (shell) { gsub(/'/, "'\\''", words[i]); line = line "'" words[i] "' " }
		else print words[i]
	}
	if (shell) print line
}

BEGIN { base = -1; block = -1 }
{ sub(/\r$/, "") }
block >= 0 {
	if ($0 ~ /^ *$/) { print ""; next }
	if (indent($0) > block) { if (!margin) margin = indent($0); print substr($0, margin + 1); next }
	block = -1
}
/^ *(#.*)?$/ { next }
base >= 0 && /^ *- / && indent($0) >= base {
	text = $0
	sub(/^ *- */, "", text)
	if (text ~ /^[|>][-+]? *$/) { block = indent($0); margin = 0; next }
	item(text)
	next
}
base >= 0 && indent($0) <= base { base = -1 }
{
	name = $0
	sub(/^[ -]*/, "", name)
	if (name !~ /^[A-Za-z_-]+ *:/) next
	rest = name
	sub(/^[^:]*: */, "", rest)
	sub(/ *:.*/, "", name)
	gsub(/-/, "_", name)
	if (name != key) next
	if (rest ~ /^\[/) { n = flow(rest, words); for (i = 1; i <= n; i++) print words[i] }
	else base = indent($0)
}
