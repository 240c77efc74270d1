set terminal svg size 1240,780 dynamic font 'sans,13' background 'white'
set output 'frontier.svg'
set multiplot layout 2,2 title 'opt-tiny, 0 % sparsity, calibrated on wikitext2.calib.txt' noenhanced
set logscale y
unset mytics
set grid back lc rgb '#dddddd'
set key outside right top vertical noenhanced samplen 1.5
set xlabel 'stored bits per weight'
set format y '%g'
$data_0_0 << EOD
2.09375 52.58974422
3.09375 38.48820272
4.09375 36.28734948
EOD
$data_0_1 << EOD
2.09375 52.58974422
2.625 43.14115309
3.125 40.39942929
3.625 38.99207998
4.125 38.18264044
EOD
$data_0_2 << EOD
2.09375 52.58974422
2.625 41.95419574
3.125 38.16726191
3.625 36.8771131
4.120659722 36.28963272
EOD
$data_0_3 << EOD
2.09375 52.58974422
2.619791667 40.13219647
3.123263889 37.59498872
3.624131944 36.59177282
4.124131944 36.13775855
EOD
$data_1_0 << EOD
2.09375 77.5954522
3.09375 51.85466151
4.09375 47.54307604
EOD
$data_1_1 << EOD
2.09375 77.5954522
2.625 60.1757021
3.125 55.24885649
3.625 52.599873
4.125 51.28779061
EOD
$data_1_2 << EOD
2.09375 77.5954522
2.625 58.61770159
3.125 50.874832
3.625 48.52800641
4.120659722 47.41741994
EOD
$data_1_3 << EOD
2.09375 77.5954522
2.619791667 55.03726579
3.123263889 50.17565461
3.624131944 48.31723657
4.124131944 47.31084324
EOD
$data_2_0 << EOD
2.09375 216.4403083
3.09375 144.0937265
4.09375 133.5889531
EOD
$data_2_1 << EOD
2.09375 216.4403083
2.625 169.5354869
3.125 152.3236341
3.625 145.3010702
4.125 140.1668601
EOD
$data_2_2 << EOD
2.09375 216.4403083
2.625 163.6383305
3.125 143.7673786
3.625 136.0990077
4.120659722 132.7245339
EOD
$data_2_3 << EOD
2.09375 216.4403083
2.619791667 149.2622925
3.123263889 141.6866397
3.624131944 135.3727585
4.124131944 133.0174756
EOD
$data_3_0 << EOD
2.09375 0.4343669005
3.09375 0.09021186729
4.09375 0.02202459808
EOD
$data_3_1 << EOD
2.09375 0.4343669005
2.625 0.2257400137
3.125 0.1542834054
3.625 0.1172426815
4.125 0.0899684399
EOD
$data_3_2 << EOD
2.09375 0.4343669005
2.625 0.1947616578
3.125 0.08303768234
3.625 0.04297783547
4.120659722 0.0217428341
EOD
$data_3_3 << EOD
2.09375 0.4343669005
2.619791667 0.1470907966
3.123263889 0.0658360962
3.624131944 0.03396578686
4.124131944 0.01855575139
EOD
set yrange [34.61966938:54.16743655]
set ytics (35, 40, 45, 50)
set ylabel 'perplexity on wikitext2' noenhanced
plot $data_0_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_0_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_0_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_0_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#33a02c' title 'budget-model', 35.65825946 with lines dt 2 lc rgb '#888888' title 'dense'
set yrange [45.09494189:79.92331577]
set ytics (50, 55, 60, 65, 70, 75)
set ylabel 'perplexity on ptb' noenhanced
plot $data_1_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_1_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_1_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_1_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#33a02c' title 'budget-model', 46.44779015 with lines dt 2 lc rgb '#888888' title 'dense'
set yrange [126.5347606:222.9335176]
set ytics (140, 160, 180, 200)
set ylabel 'perplexity on c4' noenhanced
plot $data_2_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_2_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_2_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_2_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#33a02c' title 'budget-model', 130.3308034 with lines dt 2 lc rgb '#888888' title 'dense'
set yrange [0.01801529262:0.4473979075]
set ytics (0.02, 0.05, 0.1, 0.2)
set ylabel 'KL from dense, nats per token' noenhanced
plot $data_3_0 with linespoints lw 2 pt 5 ps 0.7 lc rgb '#444444' title 'uniform', $data_3_1 with linespoints lw 2 pt 7 ps 0.7 lc rgb '#d95f02' title 'quantile', $data_3_2 with linespoints lw 2 pt 9 ps 0.7 lc rgb '#1f78b4' title 'budget-layer', $data_3_3 with linespoints lw 2 pt 11 ps 0.7 lc rgb '#33a02c' title 'budget-model'
unset multiplot
