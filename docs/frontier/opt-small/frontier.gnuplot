set terminal svg size 1240,780 dynamic font 'sans,13' background 'white'
set output 'frontier.svg'
set multiplot layout 2,2 title 'opt-small, 0 % sparsity, calibrated on wikitext2.calib.txt' noenhanced
set logscale y
unset mytics
set grid back lc rgb '#dddddd'
set key outside right top vertical noenhanced samplen 1.5
set xlabel 'stored bits per weight'
set format y '%g'
$data_0_0 << EOD
2.03515625 56.49192977
3.03515625 48.33131238
4.03515625 47.09156765
EOD
$data_0_1 << EOD
2.03515625 56.49192977
2.546875 49.88595513
3.046875 48.57258628
3.546875 48.07894203
4.046875 47.59516174
EOD
$data_0_2 << EOD
2.03515625 56.49192977
2.546875 50.26228381
3.046006944 48.04087885
3.546875 47.25732067
4.044704861 47.05693025
EOD
$data_0_3 << EOD
2.03515625 56.49192977
2.545355903 48.38933198
3.046006944 47.57517159
3.546440972 46.92646547
4.046440972 46.81439039
EOD
$data_1_0 << EOD
2.03515625 77.52888094
3.03515625 63.27332645
4.03515625 61.59081424
EOD
$data_1_1 << EOD
2.03515625 77.52888094
2.546875 67.26622956
3.046875 64.59960662
3.546875 63.84468068
4.046875 62.94449103
EOD
$data_1_2 << EOD
2.03515625 77.52888094
2.546875 67.14932747
3.046006944 62.9623799
3.546875 62.0115143
4.044704861 61.6339908
EOD
$data_1_3 << EOD
2.03515625 77.52888094
2.545355903 64.84322411
3.046006944 62.56323945
3.546440972 61.39700556
4.046440972 61.38464998
EOD
$data_2_0 << EOD
2.03515625 299.1895812
3.03515625 239.9418726
4.03515625 226.1545645
EOD
$data_2_1 << EOD
2.03515625 299.1895812
2.546875 247.2320564
3.046875 240.1724511
3.546875 232.3329256
4.046875 229.1448836
EOD
$data_2_2 << EOD
2.03515625 299.1895812
2.546875 253.352367
3.046006944 238.0997715
3.546875 228.2689292
4.044704861 226.8689102
EOD
$data_2_3 << EOD
2.03515625 299.1895812
2.545355903 235.0918698
3.046006944 230.3806222
3.546440972 223.1794791
4.046440972 225.3050268
EOD
$data_3_0 << EOD
2.03515625 0.4084559703
3.03515625 0.09455131101
4.03515625 0.02470192225
EOD
$data_3_1 << EOD
2.03515625 0.4084559703
2.546875 0.2132170831
3.046875 0.1598042986
3.546875 0.1282494262
4.046875 0.102561209
EOD
$data_3_2 << EOD
2.03515625 0.4084559703
2.546875 0.2031214114
3.046006944 0.08776632388
3.546875 0.04635757413
4.044704861 0.02344785186
EOD
$data_3_3 << EOD
2.03515625 0.4084559703
2.545355903 0.1565393412
3.046006944 0.0791043097
3.546440972 0.04037857805
4.046440972 0.02219557839
EOD
set yrange [45.34848649:58.18668767]
set ytics (50, 55)
set ylabel 'perplexity on wikitext2' noenhanced
plot $data_0_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_0_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_0_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_0_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#33a02c' title 'budget-model', 46.70894108 with lines dt 2 lc rgb '#888888' title 'dense'
set yrange [59.257864:79.85474737]
set ytics (60, 65, 70, 75)
set ylabel 'perplexity on ptb' noenhanced
plot $data_1_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_1_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_1_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_1_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#33a02c' title 'budget-model', 61.03559992 with lines dt 2 lc rgb '#888888' title 'dense'
set yrange [216.6791059:308.1652687]
set ytics (250, 300)
set ylabel 'perplexity on c4' noenhanced
plot $data_2_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_2_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_2_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_2_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#33a02c' title 'budget-model', 223.363583 with lines dt 2 lc rgb '#888888' title 'dense'
set yrange [0.02154910523:0.4207096494]
set ytics (0.05, 0.1, 0.2)
set ylabel 'KL from dense, nats per token' noenhanced
plot $data_3_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_3_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_3_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_3_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#33a02c' title 'budget-model'
unset multiplot
