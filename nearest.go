package meshbench

// Nearest returns the word that is nearest to what was written, counted in
// letters to insert, remove, replace or swap with their neighbour (the
// optimal string alignment distance), and whether it is near enough to be
// what was meant: at most one such step in words of up to 4 letters, at most
// a third of the letters in longer ones.
func Nearest(written string, words []string) (string, bool) {
	best, least := "", -1
	for _, w := range words {
		if d := distance(written, w); least < 0 || d < least {
			best, least = w, d
		}
	}
	if least < 0 || least > max(1, max(len([]rune(written)), len([]rune(best)))/3) {
		return "", false
	}
	return best, true
}

// distance is the optimal string alignment distance. Texts longer than 64
// letters count as far away.
func distance(a, b string) int {
	s, t := []rune(a), []rune(b)
	if len(s) > 64 || len(t) > 64 {
		return 64
	}
	// Three rows of the table are enough: a swap looks back two.
	before, last, row := make([]int, len(t)+1), make([]int, len(t)+1), make([]int, len(t)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(s); i++ {
		row[0] = i
		for j := 1; j <= len(t); j++ {
			replace := last[j-1]
			if s[i-1] != t[j-1] {
				replace++
			}
			row[j] = min(last[j]+1, row[j-1]+1, replace)
			if i > 1 && j > 1 && s[i-1] == t[j-2] && s[i-2] == t[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(t)]
}
